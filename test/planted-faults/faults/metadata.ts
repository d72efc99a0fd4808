// Faults of the namespace: numbers, orphans, versions, cycles, quota, and the decisions of transactions across nodes.
import type { PlantedFault, VitestTest } from '../fault.js';

const contract = (title: string): VitestTest => ({
  file: 'test/metadata/contract.test.ts',
  source: 'test/metadata/contract.ts',
  within: 'memory engine, 3 node(s)',
  title,
});
const crash = (title: string): VitestTest => ({ file: 'test/metadata/crash.test.ts', title });
const nodes = (title: string): VitestTest => ({ file: 'test/metadata/nodes.test.ts', title });

export const metadataFaults: readonly PlantedFault[] = [
  {
    name: 'inode-range-not-synced',
    breaks: 'an inode number or stripe id is never handed out twice, whatever a power loss takes back',
    file: 'src/metadata/sequence.ts',
    edits: [['      await engine.sync();\n', '']],
    caughtBy: crash('inode numbers and stripe ids are not handed out again after a power loss'),
  },
  {
    name: 'orphans-outlive-session',
    breaks: 'the end of a session removes the files that only it had open',
    file: 'src/metadata/volume.ts',
    edits: [
      [
        '    await this.sweeper.removeSessionOrphans(session, this.context(SERVICE));\n',
        '    this.context(SERVICE);\n',
      ],
    ],
    caughtBy: contract('the end of a session removes its orphans and returns its reservation'),
  },
  {
    name: 'open-file-removed-at-unlink',
    breaks: 'an open file without a name lives until its last handle closes',
    file: 'src/metadata/remove.ts',
    edits: [['  if (isOpen(ino)) {', '  if (isOpen(ino) && inode.nlink > 0) {']],
    caughtBy: contract('an open file lives on as an orphan until it is released'),
  },
  {
    name: 'publish-without-version-check',
    breaks: 'a publish lands only on the version that it was made from',
    file: 'src/metadata/publish.ts',
    edits: [["    if (inode.version !== item.baseVersion) return { ...refused, error: 'ESTALE' };\n", '']],
    caughtBy: contract('each file of a batch on its own condition, across nodes'),
  },
  {
    name: 'quota-charge-forgotten',
    breaks: 'what files use is counted',
    file: 'src/metadata/publish.ts',
    edits: [['  view.charge(node).pages += pages;\n', '']],
    caughtBy: contract('puts sizes, times and stripes in place; old versions are released'),
  },
  {
    name: 'replaced-version-not-released',
    breaks: 'a stripe version that nothing refers to any more is given back',
    file: 'src/metadata/publish.ts',
    edits: [
      ['      view.put(node, view.keys.released(old.id, old.version), encodeReleased(old.node));\n', ''],
    ],
    caughtBy: contract('puts sizes, times and stripes in place; old versions are released'),
  },
  {
    name: 'released-before-durable',
    breaks: 'a stripe is dropped only when the removal of its file is durable',
    file: 'src/metadata/volume-data.ts',
    edits: [['    if (released.length > 0) await this.cluster.sync();\n', '']],
    caughtBy: nodes('a stripe is handed out for dropping only when the file is durably gone'),
  },
  {
    name: 'rename-without-cycle-check',
    breaks: 'a directory never moves below itself',
    file: 'src/metadata/rename.ts',
    edits: [['  if (isDirectory(moved) && from !== to) requireOutside(view, moved.ino, newParent);\n', '']],
    caughtBy: contract('two renames that would make a cycle'),
  },
  {
    name: 'rename-without-lock',
    breaks: 'two renames that share no directory cannot make a cycle together',
    file: 'src/metadata/rename.ts',
    edits: [
      ['  const lock = view.get(node, view.keys.renameLock);\n', ''],
      ['  view.put(node, view.keys.renameLock, nextLock(lock));\n', ''],
    ],
    caughtBy: nodes('two renames that share no directory cannot make a cycle'),
  },
  {
    name: 'stale-epoch-accepted',
    breaks: 'no mutation of a superseded session commits',
    file: 'src/metadata/session-fence.ts',
    edits: [['    fenceEpoch(record) !== fence.epoch ||\n', '']],
    caughtBy: contract('a superseded or ended session changes nothing'),
  },
  {
    name: 'fence-not-checked-at-decision',
    breaks: 'the end of a session outlives the operations that it had prepared',
    file: 'src/metadata/spread.ts',
    edits: [
      [
        '    if (fence !== undefined) checkFence(await txn.get(cluster.sessionKey(fence.session)), fence);\n    txn.put(coordinatorKey',
        '    txn.put(coordinatorKey',
      ],
    ],
    caughtBy: crash('the end of a session outlives the operations that it had prepared'),
  },
  {
    name: 'locked-without-comparison',
    breaks: 'a record that changed since it was read restarts the transaction',
    file: 'src/metadata/spread.ts',
    edits: [
      [
        "        if (!same(now, before)) throw new Restart('a record changed before it could be locked');\n",
        '',
      ],
    ],
    caughtBy: nodes('a rename that has walked to the root notices one that came between'),
  },
  {
    name: 'decided-before-intents-durable',
    breaks: 'every intent of a transaction across nodes is durable before it is decided',
    file: 'src/metadata/spread.ts',
    edits: [['  await Promise.all(nodes.map((node) => cluster.nodes[node]!.engine.sync()));\n', '']],
    caughtBy: crash('rename of a file to a directory on another node, over a file there'),
  },
  {
    name: 'decision-record-missing',
    breaks: 'a decided transaction says so where its other nodes look',
    file: 'src/metadata/spread.ts',
    edits: [
      [
        '    txn.put(coordinatorKey(txid), encodeDecision({ ...decodeDecision(record), committed: true }));\n',
        '    decodeDecision(record);\n',
      ],
    ],
    caughtBy: crash('rename of a file to a directory on another node, over a file there'),
  },
  {
    name: 'applied-before-decision-durable',
    breaks: 'no node shows the new values before the decision is durable',
    file: 'src/metadata/spread.ts',
    edits: [['  await cluster.nodes[coordinator]!.engine.sync();\n', '']],
    caughtBy: crash('rename of a file to a directory on another node, over a file there'),
  },
  {
    name: 'settled-before-decision-durable',
    breaks: "whoever settles another's transaction makes its decision durable first",
    file: 'src/metadata/settle.ts',
    edits: [["      if (outcome === 'committed') await cluster.nodes[coordinator]!.engine.sync();\n", '']],
    caughtBy: nodes('whoever settles a decided transaction makes the decision durable first'),
  },
  {
    name: 'decision-forgotten-too-early',
    breaks: 'a decision is kept until every participant has it on disk',
    file: 'src/metadata/settle.ts',
    edits: [
      [
        '  if (finished.length === 0) return;\n  await cluster.sync();\n',
        '  if (finished.length === 0) return;\n',
      ],
    ],
    caughtBy: nodes('a decision is forgotten only when every participant is durable'),
  },
];
