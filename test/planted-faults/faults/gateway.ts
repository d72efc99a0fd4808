// Faults of write-back: when bytes count as published, and when those of a removed file may go.
import type { PlantedFault, VitestTest } from '../fault.js';

const publisher = (title: string): VitestTest => ({ file: 'test/gateway/publisher.test.ts', title });
const condemned = (title: string): VitestTest => ({ file: 'test/gateway/condemned.test.ts', title });

const AWAITED = '    await Promise.all([this.#stage(planned), cache.syncLog()]);';

export const gatewayFaults: readonly PlantedFault[] = [
  {
    name: 'completed-before-namespace-sync',
    breaks: 'pages become clean only when what refers to their copies is durable',
    file: 'src/gateway/publisher.ts',
    edits: [['    await session.namespace.sync();\n    let stale = 0;', '    let stale = 0;']],
    caughtBy: publisher(
      'bytes are durable before metadata speaks of them, and metadata before pages turn clean',
    ),
  },
  {
    name: 'published-before-staged',
    breaks: 'metadata refers only to bytes that are durable in the store',
    file: 'src/gateway/publisher.ts',
    edits: [[AWAITED, '    void this.#stage(planned);\n    await cache.syncLog();']],
    caughtBy: publisher(
      'bytes are durable before metadata speaks of them, and metadata before pages turn clean',
    ),
  },
  {
    name: 'published-before-log-durable',
    breaks: "metadata refers only to states that the cache's log has on disk",
    file: 'src/gateway/publisher.ts',
    edits: [[AWAITED, '    await this.#stage(planned);']],
    caughtBy: publisher(
      'bytes are durable before metadata speaks of them, and metadata before pages turn clean',
    ),
  },
  {
    name: 'failed-batch-not-aborted',
    breaks: 'files of a failed batch are dirty again',
    file: 'src/gateway/publisher.ts',
    edits: [
      ['      for (const snapshot of open) cache.abortPublish(snapshot.ino, snapshot.generation);\n', ''],
    ],
    caughtBy: publisher('a store that cannot be reached drops nothing and blames no file'),
  },
  {
    name: 'stale-answer-completed',
    breaks: 'a file that changed in the service meanwhile is published anew, not counted as clean',
    file: 'src/gateway/publisher.ts',
    edits: [['        stale += 1;\n        continue;\n', '        stale += 0;\n']],
    caughtBy: publisher('a file that changed in the service stays dirty; the others of its batch are clean'),
  },
  {
    name: 'cut-file-published-as-staged',
    breaks: 'what was cut while it was staged is not published',
    file: 'src/gateway/publisher.ts',
    edits: [
      [
        'if (cache.publishable(plan.snapshot.ino, plan.snapshot.generation)) plans.push(plan);',
        'if (plan.basePages >= 0) plans.push(plan);',
      ],
    ],
    caughtBy: publisher(
      'what was cut while it was staged is not published as staged; it goes up again later',
    ),
  },
  {
    name: 'cut-not-passed-to-storage',
    breaks: 'pages beyond a cut are not carried into the new version of their stripe',
    file: 'src/gateway/publish-plan.ts',
    edits: [
      ['touch(stripe.offset).keepPages = (limitBytes - stripe.offset) / PAGE_SIZE;', 'touch(stripe.offset);'],
    ],
    caughtBy: {
      file: 'test/gateway/publish-plan.test.ts',
      title: 'any history of cuts, holes and writes publishes what the file holds',
    },
  },
  {
    name: 'condemn-skipped',
    breaks: "a removed file's bytes outlive the removal's own commit",
    file: 'src/gateway/condemned.ts',
    edits: [['    this.#options.cache.condemn(ino);\n', '    this.#options.cache.forget(ino);\n']],
    caughtBy: condemned(
      'a removed file is condemned at once, and forgotten only when its removal is durable',
    ),
  },
  {
    name: 'forgotten-before-sync',
    breaks: "a removed file's bytes go only when its removal is durable",
    file: 'src/gateway/condemned.ts',
    edits: [['      await this.#options.sync();\n', '']],
    caughtBy: condemned(
      'a removed file is condemned at once, and forgotten only when its removal is durable',
    ),
  },
];
