// Faults of the local cache: what is dirty, what is promised durable, and in which order it becomes so.
import type { NativeTest, PlantedFault } from '../fault.js';

const plain: NativeTest = {
  binary: 'cache_history_test',
  testCase: 'a cache behaves as plain files do, through publishes, evictions, compactions and reopenings',
};
const killed: NativeTest = {
  binary: 'cache_history_test',
  testCase: 'killed at any call, a cache has all that was acknowledged',
};
const promise = (testCase: string): NativeTest => ({ binary: 'cache_promise_test', testCase });

export const cacheFaults: readonly PlantedFault[] = [
  {
    name: 'lent-file-punched',
    breaks: 'what the kernel may have mapped keeps its bytes when it is evicted',
    file: 'native/cache/cache_evict.cc',
    edits: [['if (node->sparse->lent) {', 'if (false) {']],
    caughtBy: { binary: 'cache_send_test', testCase: 'what is evicted stays for those who have it mapped' },
  },
  {
    name: 'sent-without-lock',
    breaks: 'what is sent out of a sparse file stays as it is until it is sent',
    file: 'native/cache/cache_io.cc',
    edits: [
      [
        'const Reading node(*table_, ino);\n  if (!node || !node->attached || !node->sparse) return std::nullopt;',
        'Reading node(*table_, ino);\n  if (!node || !node->attached || !node->sparse) return std::nullopt;',
      ],
      ['if (!sink.send(', 'node.unlock();\n  if (!sink.send('],
    ],
    caughtBy: {
      binary: 'cache_send_test',
      testCase: 'nobody overwrites, cuts or punches what is being sent',
    },
  },
  {
    name: 'evicted-page-sent',
    breaks: 'only pages that are in the sparse file are sent out of it',
    file: 'native/cache/cache_io.cc',
    edits: [
      [
        'pages_of(offset + length) - first, kPresent | kValid)) return std::nullopt;',
        'pages_of(offset + length) - first, kPresent)) return std::nullopt;',
      ],
    ],
    caughtBy: {
      binary: 'cache_send_test',
      testCase: 'what does not wholly lie in one file as it is read is not sent',
    },
  },
  {
    name: 'dropped-dirty-bit',
    breaks: 'a written page is dirty until it is published',
    file: 'native/cache/inode.cc',
    edits: [
      [
        'update(first, count, kPresent | kValid | kDirty, 0);\n  for (uint64_t index = 0; index < images.size()',
        'update(first, count, kPresent | kValid, 0);\n  for (uint64_t index = 0; index < images.size()',
      ],
    ],
    caughtBy: plain,
  },
  {
    name: 'rewritten-page-acknowledged',
    breaks: 'a publish cleans the pages of its snapshot only, not what was written meanwhile',
    file: 'native/cache/inode.cc',
    edits: [['update(at, length, 0, kInFlight); });', 'update(at, length, 0, kInFlight | kDirty); });']],
    caughtBy: plain,
  },
  {
    name: 'dirty-page-evicted',
    breaks: 'only clean pages are evicted',
    file: 'native/cache/inode.cc',
    edits: [['kValid | kDirty | kInFlight, kValid,\n', 'kValid, kValid,\n']],
    caughtBy: plain,
  },
  {
    name: 'cut-not-remembered',
    breaks: 'a publish removes what a truncate cut off the published layout',
    file: 'native/cache/inode.cc',
    edits: [['  state.base_limit = std::min(state.base_limit, page);\n', '']],
    caughtBy: plain,
  },
  {
    name: 'aborted-publish-cleans',
    breaks: 'pages of a failed publish are dirty again',
    file: 'native/cache/inode.cc',
    edits: [
      [
        'update(at, length, kDirty, kInFlight); });\n}\n\nvoid Inode::apply_drop',
        'update(at, length, 0, kInFlight); });\n}\n\nvoid Inode::apply_drop',
      ],
    ],
    caughtBy: plain,
  },
  {
    name: 'stale-generation-acknowledged',
    breaks: 'an acknowledgement of an earlier publish says nothing about the one under way',
    file: 'native/cache/cache_publish.cc',
    edits: [
      [
        'const Changing node(*table_, ino);\n  if (!node || !node->in_flight() || node->unpublished->in_flight->generation != generation) {\n    // Forgotten',
        'const Changing node(*table_, ino);\n  if (node && node->in_flight()) generation = node->unpublished->in_flight->generation;\n  if (!node || !node->in_flight()) {\n    // Forgotten',
      ],
    ],
    caughtBy: promise('an outcome of an earlier generation changes nothing'),
  },
  {
    name: 'truncate-tail-not-zeroed',
    breaks: 'what a truncate cut off inside a page reads as zeros when the file grows again',
    file: 'native/cache/cache_change.cc',
    edits: [['        plan.edges.push_back(tail);\n', '']],
    caughtBy: plain,
  },
  {
    name: 'fill-overwrites-dirty-page',
    breaks: 'a fetched page never replaces what was written here',
    file: 'native/cache/cache_io.cc',
    edits: [
      [
        'node->map.next_run(page, end, kPresent | kValid | kDirty | kInFlight, kPresent);',
        'node->map.next_run(page, end, kPresent, kPresent);',
      ],
    ],
    caughtBy: plain,
  },
  {
    name: 'no-intent-before-overwrite',
    breaks: 'a clean page is known to be changing before its bytes change in place',
    file: 'native/cache/cache_io.cc',
    edits: [
      [
        'const bool to_intend =\n        after != nullptr &&',
        'const bool to_intend =\n        false && after != nullptr &&',
      ],
    ],
    caughtBy: killed,
  },
  {
    name: 'barrier-record-lost',
    breaks: 'fsync records up to where the file is durable',
    file: 'native/cache/cache_sync.cc',
    edits: [
      [
        '      if (auto appended = append(*node, RecordKind::barrier, raw(barrier)); !appended)\n        return appended.error();\n',
        '',
      ],
    ],
    caughtBy: promise('a page overwritten since its fsync has its bytes of then, or newer ones'),
  },
  {
    name: 'data-not-synced-before-barrier',
    breaks: 'the bytes that a barrier promises are on disk before it',
    file: 'native/cache/cache_sync.cc',
    edits: [
      [
        '    if (auto synced = sync_data_of(ino, file_id, *data); !synced) return synced;\n',
        '    static_cast<void>(file_id);\n',
      ],
    ],
    caughtBy: promise('a file that was fsynced is there after a power loss'),
  },
  {
    name: 'log-not-synced-by-fsync',
    breaks: 'fsync returns after the records of the file are durable',
    file: 'native/cache/cache_sync.cc',
    edits: [['const Result<void> logged = log_->sync_all();', 'const Result<void> logged;']],
    caughtBy: promise('a file that was fsynced is there after a power loss'),
  },
  {
    name: 'punched-before-record-durable',
    breaks: 'bytes are destroyed only when the record that gives them up is durable',
    file: 'native/cache/cache_evict.cc',
    edits: [
      [
        '  if (auto synced = log_->sync_all(); !synced) return synced;\n  const uint64_t durable = log_->durable_lsn();\n',
        '  const uint64_t durable = kNoLimit;\n',
      ],
    ],
    caughtBy: promise('what a truncate cut off is destroyed only once the truncate is durable'),
  },
];
