// Faults of the extent store: data before journal, free space before reuse, shared blocks, checksums.
import type { NativeTest, PlantedFault } from '../fault.js';

const crash: NativeTest = {
  binary: 'extent_crash_test',
  testCase: 'a crash at every call loses nothing acknowledged and leaves nothing half done',
};

export const extentFaults: readonly PlantedFault[] = [
  {
    name: 'journal-before-data',
    breaks: 'pages are on disk before the journal maps them',
    file: 'native/extent/extent_store.cc',
    edits: [['  if (outcome) outcome = sync_touched(group);\n', '']],
    caughtBy: crash,
  },
  {
    name: 'free-not-journalled',
    breaks: 'a freed page is reused only when its release is durable',
    file: 'native/extent/extent_store.cc',
    edits: [
      [
        '      for (const VersionKey& key : commit->drops) encode(DropChange{key.stripe, key.version}, payload);\n',
        '',
      ],
    ],
    caughtBy: crash,
  },
  {
    name: 'acknowledged-before-journal-sync',
    breaks: 'a change is durable when it is acknowledged, and before what it freed is written over',
    file: 'native/extent/journal.cc',
    edits: [
      [
        '  if (auto done = file_->sync_data(); !done) return fatal(done.error());\n  offset_ += buffer_.size();',
        '  offset_ += buffer_.size();',
      ],
    ],
    caughtBy: crash,
  },
  {
    name: 'segment-name-not-synced',
    breaks: 'a journal segment is found after a power loss before anything is written to it',
    file: 'native/extent/journal.cc',
    edits: [
      ['  if (auto done = file_system_.sync_directory(directory_); !done) return fatal(done.error());\n', ''],
    ],
    caughtBy: crash,
  },
  {
    name: 'checkpoint-in-place-before-sync',
    breaks: 'a checkpoint is whole on disk before it replaces the journal',
    file: 'native/extent/checkpoint.cc',
    edits: [
      [
        '  if (auto done = file_->sync_data(); !done) return done;\n  if (auto done = file_system_->rename',
        '  if (auto done = file_system_->rename',
      ],
    ],
    caughtBy: crash,
  },
  {
    name: 'shared-block-not-counted',
    breaks: 'a block that two versions share is freed with the second of them',
    file: 'native/extent/stripe_map.cc',
    edits: [['      if (nodes[index] != nullptr) nodes[index]->retain();\n', '']],
    caughtBy: crash,
  },
  {
    name: 'written-in-place',
    breaks: 'a new version never writes over the pages of its base (copy on write)',
    file: 'native/extent/stage_plan.cc',
    edits: [
      [
        '        const uint32_t to = runs[run].page + used++;',
        '        const uint32_t old = need.before.page[index];\n        const uint32_t fresh = runs[run].page + used++;\n        const uint32_t to = old != 0 && need.before.extent == extent ? old : fresh;',
      ],
    ],
    caughtBy: crash,
  },
  {
    name: 'cut-pages-kept',
    breaks: 'pages beyond a cut are not part of the new version',
    file: 'native/extent/stage_plan.cc',
    edits: [
      [
        '    if (block_begin + page >= item.keep_pages) before.remove(static_cast<uint32_t>(page));\n',
        '    static_cast<void>(block_begin);\n',
      ],
    ],
    caughtBy: crash,
  },
  {
    name: 'freed-page-reused-under-reader',
    breaks: 'a freed page is reused only when no reader can still be reading it',
    file: 'native/extent/extent.cc',
    edits: [
      ['while (!limbo_.empty() && limbo_.front().stamp < oldest_reader) {', 'while (!limbo_.empty()) {'],
    ],
    caughtBy: {
      binary: 'extent_store_test',
      testCase: 'pages dropped under a reader are not reused before it is done',
    },
  },
  {
    name: 'checksum-not-verified',
    breaks: 'a damaged page is an error, never wrong bytes',
    file: 'native/extent/extent_store_read.cc',
    edits: [
      [
        'if (is_there && crc32c(0, out.subspan(i * kPageSize, kPageSize)) == crcs[piece.crc + i]) continue;',
        'if (is_there) continue;',
      ],
    ],
    caughtBy: {
      file: 'test/storage/local-storage-node.test.ts',
      title: 'given a flipped bit on disk, then fetch is EIO naming the page and scrub finds exactly it',
      needsAddon: true,
    },
  },
];
