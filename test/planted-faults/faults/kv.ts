// Faults of the key-value engine: isolation, and what sync covers.
import type { PlantedFault, VitestTest } from '../fault.js';

const contract = (title: string): VitestTest => ({
  file: 'test/kv/memory-engine.test.ts',
  source: 'test/kv/contract.ts',
  within: 'memory engine: contract',
  title,
});

export const kvFaults: readonly PlantedFault[] = [
  {
    name: 'conflict-validation-dropped',
    breaks: 'a transaction commits only if nothing that it read has changed',
    file: 'src/kv/optimistic.ts',
    edits: [
      ['txn.begin !== this.#sequence && this.#changedSince(txn)', 'txn.begin < 0 && this.#changedSince(txn)'],
    ],
    caughtBy: contract('3.2 runs again when a key it read has changed'),
  },
  {
    name: 'phantom-missed',
    breaks: 'what appears in a range that was read is a conflict',
    file: 'src/kv/transaction.ts',
    edits: [
      [
        '    if (last === undefined) this.#readIntervals.push({ start: range.start, end: range.end });\n    else if',
        '    if (last === undefined) return found;\n    else if',
      ],
    ],
    caughtBy: contract('3.5 runs again when a phantom appears in a range, not in a scan'),
  },
  {
    name: 'sync-shared-too-late',
    breaks: 'a sync covers every commit acknowledged before the call',
    file: 'src/kv/group-sync.ts',
    edits: [
      [
        '    if (this.#next === undefined) {\n',
        '    if (this.#next === undefined) return this.#running;\n    if (this.#next === undefined) {\n',
      ],
    ],
    caughtBy: {
      file: 'test/kv/memory-engine.test.ts',
      title: 'a sync asked for while another runs covers what was acknowledged before it was asked for',
    },
  },
  {
    name: 'log-rotated-without-sync',
    breaks: 'a log takes commits only when the one before it is wholly on disk',
    file: 'native/kv/rocks_store.cc',
    edits: [['  if (Result<void> synced = sync(); !synced) return synced;\n', '']],
    caughtBy: {
      file: 'test/kv/crash.test.ts',
      title: 'never meets a log with commits while the one before it is not wholly synced',
      needsAddon: true,
    },
  },
];
