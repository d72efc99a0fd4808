// What only goes wrong when keys lie on several nodes: cycles by renames that share no record, refusals based on two
// moments, coordinators that are slower than the patience of others, and power losses of some nodes only.
import { expect, test } from 'vitest';
import type { MemoryEngine } from '../../src/kv/memory-engine.js';
import { type MetadataError, RenameFlag } from '../../src/metadata/contract.js';
import { giveBack } from '../../src/metadata/quota.js';
import { MetadataService } from '../../src/metadata/service.js';
import { SessionState } from '../../src/metadata/session-fence.js';
import { forgetFinished } from '../../src/metadata/settle.js';
import { run } from '../../src/metadata/transaction.js';
import type { Volume } from '../../src/metadata/volume.js';
import { delays, generator } from './random.js';
import {
  closed,
  codeOf,
  EPOCH,
  makeBench,
  memoryEngines,
  name,
  REG,
  root,
  SESSION,
  setSession,
} from './support.js';

const mkdir = async (volume: Volume, parent: number, text: string): Promise<number> =>
  (await volume.makeDirectory(root, parent, name(text), 0o755)).ino;

const rename = (volume: Volume, from: number, old: string, to: number, text: string) =>
  volume.rename(root, from, name(old), to, name(text), 0, closed);

async function slowService(engines: readonly MemoryEngine[], seed: number) {
  const random = generator(seed);
  const slow = engines.map((engine) =>
    engine.crash({ keep: 'all', faults: { random, delay: delays(random) } }),
  );
  const service = await MetadataService.open(slow, { random });
  return { service, volume: await service.volume('v') };
}

test('two renames that share no directory cannot make a cycle', async () => {
  let refusals = 0;
  for (let seed = 1; seed <= 12; seed++) {
    const engines = memoryEngines(3);
    const { volume: quiet } = await makeBench(engines);
    // p/a/d and q/b/c: moving a below c and b below d touches {p, a, c} and {q, b, d}.
    const p = await mkdir(quiet, 1, `p${seed}`);
    const q = await mkdir(quiet, 1, `q${seed}`);
    const a = await mkdir(quiet, p, 'a');
    const b = await mkdir(quiet, q, 'b');
    const c = await mkdir(quiet, b, 'c');
    const d = await mkdir(quiet, a, 'd');
    const { service, volume } = await slowService(engines, seed);
    const codes = await Promise.all([
      codeOf(rename(volume, p, 'a', c, 'x')),
      codeOf(rename(volume, q, 'b', d, 'y')),
    ]);
    expect(codes.filter((code) => code === 'none').length).toBe(1);
    if (codes.includes('EINVAL')) refusals += 1;
    expect((await service.fsck('v')).findings).toEqual([]);
  }
  expect(refusals).toBe(12);
});

test('a rename that has walked to the root notices one that came between', async () => {
  const engines = memoryEngines(3);
  const { service, volume: other } = await makeBench(engines);
  // p/a/d and q/b/c again, until the first rename needs several nodes.
  for (let n = 0, spread = false; !spread; n++) {
    const [p, q] = [await mkdir(other, 1, `p${n}`), await mkdir(other, 1, `q${n}`)];
    const [a, b] = [await mkdir(other, p, 'a'), await mkdir(other, q, 'b')];
    const [c, d] = [await mkdir(other, b, 'c'), await mkdir(other, a, 'd')];
    const slow = await MetadataService.open(engines, {
      onStep: async (step) => {
        if (step !== 'read' || spread) return;
        spread = true;
        await rename(other, q, 'b', d, 'y');
      },
    });
    const code = await codeOf(rename(await slow.volume('v'), p, 'a', c, 'x'));
    expect(code).toBe(spread ? 'EINVAL' : 'none');
  }
  expect((await service.fsck('v')).findings).toEqual([]);
});

test('the quota is used up to the last inode and not beyond, whoever asks at once', async () => {
  for (let seed = 1; seed <= 8; seed++) {
    const engines = memoryEngines(3);
    const { volume: quiet } = await makeBench(engines, { inodesQuota: 30, bytesQuota: 60 * 4096 });
    const dirs: number[] = [];
    for (let n = 0; n < 5; n++) dirs.push(await mkdir(quiet, 1, `d${n}`));
    const { service, volume } = await slowService(engines, seed);
    const asked = Array.from({ length: 40 }, (_, n) =>
      n % 4 === 0
        ? codeOf(mkdir(volume, dirs[n % 5]!, `n${n}`))
        : codeOf(volume.makeNode(root, dirs[n % 5]!, name(`n${n}`), REG | 0o644, 0)),
    );
    const codes = await Promise.all(asked);
    expect(codes.filter((code) => code === 'none').length).toBe(30 - 6);
    expect(codes.filter((code) => code === 'EDQUOT').length).toBe(40 - 24);
    const granted = await Promise.all([1, 2, 3, 4].map((n) => volume.reservePages(root, 10 * n)));
    expect(granted.reduce((sum, pages) => sum + pages)).toBe(60);
    expect((await service.fsck('v')).findings).toEqual([]);
  }
});

test('a name that is there at every moment is always found, whenever it is replaced', async () => {
  const engines = memoryEngines(3);
  const { service: first } = await makeBench(engines);
  await first[Symbol.asyncDispose]();
  let waits = 0;
  let at = 0;
  let act: (() => Promise<void>) | undefined;
  // At the wait of that number, wherever it is, the name is replaced before the read goes on.
  const delay = (): Promise<void> | undefined => {
    if (act === undefined || ++waits !== at) return undefined;
    const acting = act;
    act = undefined;
    return acting();
  };
  const faults = { random: Math.random, delay };
  const slow = engines.map((engine) => engine.crash({ keep: 'all', faults }));
  const service = await MetadataService.open(slow);
  const volume = await service.volume('v');
  /** A directory that does not lie on the root's node. */
  let made = 0;
  const mkdirElsewhere = async (): Promise<string> => {
    for (;;) {
      const text = `next${++made}`;
      if (service.cluster.map.node((await mkdir(volume, 1, text)) % 4096) !== 0) return text;
    }
  };
  await rename(volume, 1, await mkdirElsewhere(), 1, 'name');
  let replaced = 0;
  for (at = 1; ; at++) {
    const next = await mkdirElsewhere();
    waits = 0;
    act = async () => {
      await rename(volume, 1, next, 1, 'name');
      replaced += 1;
    };
    const { nlink } = await volume.lookup(root, 1, name('name'));
    expect(nlink).toBe(2);
    if (act !== undefined) break;
    // The same, and what bore the name lives on changed: nobody may see that under the name.
    const other = await mkdirElsewhere();
    waits = 0;
    act = async () => {
      const { moved } = await volume.rename(
        root,
        1,
        name('name'),
        1,
        name(other),
        RenameFlag.Exchange,
        closed,
      );
      await volume.setAttributes(root, moved.ino, { mode: 0o700 });
    };
    expect((await volume.lookup(root, 1, name('name'))).mode & 0o777).toBe(0o755);
    act = undefined;
  }
  // Local attempt, then each record from its node, then each again.
  expect(replaced).toBeGreaterThanOrEqual(8);
  expect((await service.fsck('v')).findings).toEqual([]);
});

test('a coordinator that was too slow finds its transaction aborted, and begins again', async () => {
  const engines = memoryEngines(3);
  const bench = await makeBench(engines);
  const other = await (await MetadataService.open(engines, { intentTimeoutMs: 0 })).volume('v');
  let stopped = 0;
  const slow = await MetadataService.open(engines, {
    onStep: async (step) => {
      if (step !== 'synced' || stopped++ > 0) return;
      // While it stands here with its intents in place, another process wants the directory and has no patience.
      await other.makeNode(root, 1, name('impatient'), REG | 0o644, 0);
    },
  });
  const volume = await slow.volume('v');
  for (let n = 0; stopped === 0; n++) await mkdir(volume, 1, `d${n}`);
  expect(stopped).toBeGreaterThan(1);
  const texts = (await volume.readDirectory(root, 1, 0n, 100, false)).map((entry) => entry.name.toString());
  expect(texts).toContain('impatient');
  expect((await volume.getAttributes(root, 1)).nlink).toBe(texts.length - 1 + 2);
  expect((await bench.service.fsck('v')).findings).toEqual([]);
});

/** A file in a directory on each node, renamed from one node to another; a step may throw. */
async function renameAcross(onStep: (step: string) => Promise<void>) {
  let armed = false;
  const engines = memoryEngines(3);
  const bench = await makeBench(
    engines,
    {},
    {
      onStep: async (step) => {
        if (armed) await onStep(step);
      },
    },
  );
  const { volume } = bench;
  const { map } = bench.service.cluster;
  const dirs: number[] = [];
  for (let n = 0; dirs.filter((ino) => ino !== undefined).length < 3; n++) {
    const ino = await mkdir(volume, 1, `d${n}`);
    dirs[map.node(ino % 4096)] = ino;
  }
  await volume.makeNode(root, dirs[0]!, name('f'), REG | 0o644, 0);
  await volume.sync();
  armed = true;
  const outcome = await rename(volume, dirs[0]!, 'f', dirs[2]!, 'g').then(
    () => 'done',
    (error: Error) => error.message,
  );
  armed = false;
  return { engines, bench, dirs, outcome };
}

async function placesOf(engines: readonly MemoryEngine[], dirs: readonly number[]): Promise<string[]> {
  const service = await MetadataService.open(engines);
  const volume = await service.volume('v');
  expect((await service.fsck('v')).findings).toEqual([]);
  return [
    await codeOf(volume.lookup(root, dirs[0]!, name('f'))),
    await codeOf(volume.lookup(root, dirs[2]!, name('g'))),
  ];
}

test('a decision is forgotten only when every participant is durable', async () => {
  const { engines, bench, dirs, outcome } = await renameAcross(async () => {});
  expect(outcome).toBe('done');
  await forgetFinished(bench.service.cluster);
  // The coordinator's disk keeps everything, the others what was synced.
  const survivors = engines.map((engine, node) => engine.crash({ keep: node === 0 ? 'all' : 'synced' }));
  expect(await placesOf(survivors, dirs)).toEqual(['ENOENT', 'none']);
});

test('whoever settles a decided transaction makes the decision durable first', async () => {
  const { engines, bench, dirs, outcome } = await renameAcross(async (step) => {
    if (step === 'decided') throw new Error('stopped');
  });
  expect(outcome).toBe('stopped');
  // A reader on the participant's node settles it there; then the coordinator loses what it had not synced.
  expect((await bench.volume.lookup(root, dirs[2]!, name('g'))).nlink).toBe(1);
  const survivors = engines.map((engine, node) => engine.crash({ keep: node === 2 ? 'all' : 'synced' }));
  expect(await placesOf(survivors, dirs)).toEqual(['ENOENT', 'none']);
});

test('a stripe is handed out for dropping only when the file is durably gone', async () => {
  const engines = memoryEngines(1);
  const { volume } = await makeBench(engines);
  const { ino } = await volume.makeNode(root, 1, name('f'), REG | 0o644, 0);
  const time = { sec: 1, nsec: 0 };
  const stripes = [{ offset: 0, length: 2 ** 20, id: 1, version: 1, node: 1 }];
  const publish = { ino, baseVersion: 0, size: 1, pages: 1, mtime: time, ctime: time, removedStripes: [] };
  await volume.publish(root, [{ ...publish, stripes }]);
  await volume.sync();
  await volume.unlink(root, 1, name('f'), closed);
  expect((await volume.takeReleased(10)).length).toBe(1);
  const service = await MetadataService.open(engines.map((engine) => engine.crash({ keep: 'synced' })));
  expect(await codeOf((await service.volume('v')).lookup(root, 1, name('f')))).toBe('ENOENT');
});

/** Two nodes and 40 pages, all of them reserved by a session on its node; a file on each. */
async function reservedBy(session: number) {
  const engines = memoryEngines(2);
  const bench = await makeBench(engines, { bytesQuota: 40 * 4096 });
  const caller = { ...root, session };
  await setSession(engines, session);
  const files: number[] = [];
  for (let n = 0; files[0] === undefined || files[1] === undefined; n++) {
    const dir = await mkdir(bench.volume, 1, `d${n}`);
    const { ino } = await bench.volume.makeNode(root, dir, name('f'), REG | 0o644, 0);
    files[bench.service.cluster.map.node(ino % 4096)] = ino;
  }
  expect(await bench.volume.reservePages(caller, 40)).toBe(40);
  const time = { sec: 1, nsec: 0 };
  const publish = async (volume: Volume, node: number, pages: number): Promise<string> => {
    const times = { mtime: time, ctime: time };
    const file = { ino: files[node]!, baseVersion: 0, size: 1, pages, stripes: [], removedStripes: [] };
    const [result] = await volume.publish(caller, [{ ...file, ...times }]);
    return result!.error ?? 'none';
  };
  /** Publishes on a node to which the reservation must move; `meanwhile` comes before the move is prepared. */
  const publishAway = async (node: number, pages: number, meanwhile: () => Promise<unknown>) => {
    let moves = 0;
    const onStep = async (step: string): Promise<void> => {
      if (step === 'read' && moves++ === 0) await meanwhile();
    };
    const slow = await (await MetadataService.open(engines, { onStep })).volume('v');
    const code = await publish(slow, node, pages).catch((error: MetadataError) => error.code);
    expect(moves).toBeGreaterThan(0);
    return code;
  };
  return { ...bench, publish, publishAway };
}

test('a reservation that is used while it is about to move is not there twice', async () => {
  const { service, volume, publish, publishAway } = await reservedBy(SESSION);
  expect(await publishAway(1, 30, () => publish(volume, 0, 35))).toBe('EDQUOT');
  expect((await volume.statistics()).bytesUsed).toBe(35 * 4096);
  expect((await service.fsck('v')).findings).toEqual([]);
});

test('a reservation does not move behind the end of its session', async () => {
  const onSecond = 4096 + 4000;
  const { service, engines, volume, publishAway } = await reservedBy(onSecond);
  const { cluster } = service;
  const giveBackOn = (node: number) =>
    run(cluster, volume.keys, node, undefined, (view) => giveBack(view, node, onSecond, 40));
  const code = await publishAway(0, 30, async () => {
    await setSession(engines, onSecond, EPOCH, SessionState.Ending);
    // The end of a session goes from node to node. It has been on this one.
    expect(await giveBackOn(0)).toBe(0);
  });
  expect(code).toBe('ESTALE');
  expect(await giveBackOn(1)).toBe(40);
  expect(await volume.reservePages(root, 40)).toBe(40);
  expect((await service.fsck('v')).findings).toEqual([]);
});
