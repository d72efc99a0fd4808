// Faults of sessions: epochs, fences, leases.
import type { PlantedFault, VitestTest } from '../fault.js';

const sessions = (title: string): VitestTest => ({
  file: 'test/access/sessions.test.ts',
  within: 'sessions on 3 metadata nodes',
  title,
});

export const accessFaults: readonly PlantedFault[] = [
  {
    name: 'epoch-reused',
    breaks: 'an epoch of a session slot is never given twice',
    file: 'src/metadata/sessions.ts',
    edits: [['fenceEpoch(previous) + 1', 'fenceEpoch(previous)']],
    caughtBy: sessions('never reuses an epoch of a slot, also after close and after a restart'),
  },
  {
    name: 'cleaned-up-before-fenced',
    breaks: 'nothing of a session is given to others before it is fenced on every node',
    file: 'src/metadata/sessions.ts',
    edits: [
      ['      await this.#putEverywhere({ ...record, state: SessionState.Ending });\n', ''],
      [
        '      await this.#copyFence({ ...record, state: SessionState.Ended });\n',
        '      await this.#putEverywhere({ ...record, state: SessionState.Ending });\n      await this.#copyFence({ ...record, state: SessionState.Ended });\n',
      ],
    ],
    caughtBy: sessions('fences on every node before anything is cleaned up'),
  },
  {
    name: 'old-epoch-admitted',
    breaks: 'a request of another epoch is refused before the namespace sees it',
    file: 'src/access/gate.ts',
    edits: [
      [
        'return caller.session === this.#id && caller.epoch === this.#epoch && this.isOpen();',
        'return caller.session === this.#id && this.isOpen();',
      ],
    ],
    caughtBy: {
      file: 'test/access/caches.test.ts',
      title: 'refuses a caller of another session or another epoch before the namespace sees it',
    },
  },
  {
    name: 'lease-counted-from-answer',
    breaks: "a client's limit for its lease lies before the service's",
    file: 'src/access/gate.ts',
    edits: [
      ['    this.granted(sentAtMs, leaseMs);', '    this.granted(this.#clock.monotonicMs(), leaseMs);'],
    ],
    caughtBy: {
      file: 'test/access/sessions.test.ts',
      title: 'counts a renewed lease from before the request, however long the answer took',
    },
  },
];
