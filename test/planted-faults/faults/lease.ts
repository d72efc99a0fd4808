// Faults of the lease agent: promises about exclusive leases.
import type { PlantedFault, VitestTest } from '../fault.js';

const agent = (title: string): VitestTest => ({ file: 'test/lease/agent.test.ts', title });
const recovery = (title: string): VitestTest => ({ file: 'test/lease/recovery.test.ts', title });
const history: VitestTest = {
  file: 'test/lease/history.test.ts',
  title: 'no exclusive lease is held by two, tokens grow, everything can be leased after all is mended',
};

export const leaseFaults: readonly PlantedFault[] = [
  {
    name: 'granted-before-quiet',
    breaks: "a dead agent's producers are granted only after its longest lease",
    file: 'src/lease/kv-coordination.ts',
    edits: [['Math.max(record.quietMs, last?.leaseMsMax ?? 0)', '0']],
    caughtBy: agent("a dead agent's producers come to another, which waits for the leases that may live"),
  },
  {
    name: 'tokens-of-the-old-block',
    breaks: 'an agent that comes to own a producer grants it with tokens above all earlier ones',
    file: 'src/lease/agent.ts',
    edits: [['      this.#tokens.get(service.name)!.discard();\n', '']],
    caughtBy: history,
  },
  {
    name: 'restart-forgets',
    breaks: 'an agent without its journal waits out what it may have granted',
    file: 'src/lease/agent.ts',
    edits: [['complete ? 0 : this.#quietMsAfter(leaseMsMax)', '0']],
    caughtBy: agent('waits out what it may have granted when its journal is gone'),
  },
  {
    name: 'fence-too-late',
    breaks: 'an agent that is cut off stops before others may begin',
    file: 'src/lease/membership.ts',
    edits: [['FENCE_SHARE * this.memberTtlMs', '3 * this.memberTtlMs']],
    caughtBy: agent("a dead agent's producers come to another, which waits for the leases that may live"),
  },
  {
    name: 'revoked-and-granted',
    breaks: 'a revoked exclusive lease keeps its producer until its time is over',
    file: 'src/lease/service.ts',
    edits: [['    held.revoked = true;\n', '    this.selector.revoke(this.#numberOf(held));\n']],
    caughtBy: agent('a revoked exclusive lease is not renewed, and goes to nobody else until it ran out'),
  },
  {
    name: 'renewed-while-handed-over',
    breaks: 'a lease that is on its way to another agent is not prolonged by the old one',
    file: 'src/lease/service.ts',
    edits: [['    if (owned.frozen) throw onItsWay(lease.producer);\n', '']],
    caughtBy: agent('a lease that is being handed over is not renewed by the old owner'),
  },
  {
    name: 'inherited-not-journalled',
    breaks: "an inherited lease leaves the coordination when it is in its new agent's journal",
    file: 'src/lease/service.ts',
    edits: [['if (this.exclusive) await Promise.all(taken', 'if (this.exclusive) void Promise.all(taken']],
    caughtBy: recovery('is in the journal there before it leaves the coordination'),
  },
  {
    name: 'journal-of-another-life',
    breaks: 'a journal that lacks later lives of its agent is not trusted',
    file: 'src/lease/agent.ts',
    edits: [['trusted === incarnation - 1', 'trusted !== undefined']],
    caughtBy: recovery('never lease a producer to two, and lease again once one of them is gone'),
  },
  {
    name: 'trusted-too-soon',
    breaks: 'after a power loss the quiet time is waited out, however often the agent is killed in it',
    file: 'src/lease/agent.ts',
    edits: [['if (complete) await this.#journal.trust', 'await this.#journal.trust']],
    caughtBy: recovery(
      'after a power loss: nothing is granted in the quiet time, however often the agent is killed in it',
    ),
  },
  {
    name: 'renewal-shortens',
    breaks: 'a renewal never ends a lease sooner than its holder believes',
    file: 'src/lease/selector.ts',
    edits: [
      [
        'Math.max(this.#leases.expiresMs(slot), nowMs + this.#jitteredTtlMs())',
        'nowMs + this.#jitteredTtlMs()',
      ],
    ],
    caughtBy: recovery('never ends a lease sooner than its holder believes'),
  },
];
