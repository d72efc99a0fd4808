// A crash between every two steps of operations whose keys lie on several nodes. The coordinator stops at the step; then
// either everything restarts on what the disks hold (after a kill: all; after a power loss: only what was synced, node
// by node), or the others go on and meet what was left behind. Either way the operation has happened wholly or not at
// all, and nothing is left undecided.
import { describe, expect, test } from 'vitest';
import type { MemoryEngine } from '../../src/kv/memory-engine.js';
import { RenameFlag } from '../../src/metadata/contract.js';
import { MetadataService } from '../../src/metadata/service.js';
import { settleAll } from '../../src/metadata/settle.js';
import { directoryShard } from '../../src/metadata/shard-map.js';
import type { Volume } from '../../src/metadata/volume.js';
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

class Crash extends Error {}

interface World {
  readonly volume: Volume;
  /** Directories on every node: dirs[i] lies on node i. */
  readonly dirs: readonly number[];
}

interface Scenario {
  readonly what: string;
  prepare?(world: World): Promise<void>;
  act(world: World): Promise<unknown>;
}

const mk = (volume: Volume, parent: number, text: string): Promise<{ ino: number }> =>
  volume.makeNode(root, parent, name(text), REG | 0o644, 0);

const scenarios: Scenario[] = [
  {
    what: 'mkdir on another node',
    act: ({ volume, dirs }) => {
      const parent = dirs[2]!;
      const home = (text: string): number =>
        volume.cluster.map.node(directoryShard(parent, volume.names.of(name(text)).low));
      let n = 0;
      while (home(`new${n}`) === 2) n += 1;
      return volume.makeDirectory(root, parent, name(`new${n}`), 0o755);
    },
  },
  {
    what: 'rename of a file to a directory on another node, over a file there',
    prepare: async ({ volume, dirs }) => {
      await mk(volume, dirs[0]!, 'from');
      await mk(volume, dirs[2]!, 'to');
    },
    act: ({ volume, dirs }) => volume.rename(root, dirs[0]!, name('from'), dirs[2]!, name('to'), 0, closed),
  },
  {
    what: 'rename of a directory across nodes',
    prepare: async ({ volume, dirs }) => {
      await mk(volume, dirs[1]!, 'inside');
    },
    act: ({ volume, dirs }) => volume.rename(root, 1, name('dir1'), dirs[2]!, name('moved'), 0, closed),
  },
  {
    what: 'exchange across nodes',
    prepare: async ({ volume, dirs }) => {
      await mk(volume, dirs[0]!, 'file');
    },
    act: ({ volume, dirs }) =>
      volume.rename(root, dirs[0]!, name('file'), 1, name('dir2'), RenameFlag.Exchange, closed),
  },
  {
    what: 'link from another node, then unlink of it',
    prepare: async ({ volume, dirs }) => {
      const { ino } = await mk(volume, dirs[0]!, 'file');
      await volume.link(root, ino, dirs[1]!, name('second'));
      await volume.unlink(root, dirs[0]!, name('file'), closed);
    },
    act: ({ volume, dirs }) => volume.unlink(root, dirs[1]!, name('second'), closed),
  },
  {
    what: 'unlink of a symbolic link from another node',
    prepare: async ({ volume, dirs }) => {
      await volume.makeSymlink(root, dirs[0]!, name('link'), name('target'));
      await volume.rename(root, dirs[0]!, name('link'), dirs[2]!, name('moved'), 0, closed);
    },
    act: ({ volume, dirs }) => volume.unlink(root, dirs[2]!, name('moved'), closed),
  },
  {
    what: 'rename of a file over a symbolic link on another node',
    prepare: async ({ volume, dirs }) => {
      await volume.makeSymlink(root, dirs[0]!, name('link'), name('target'));
      await mk(volume, dirs[2]!, 'file');
    },
    act: ({ volume, dirs }) => volume.rename(root, dirs[2]!, name('file'), dirs[0]!, name('link'), 0, closed),
  },
  {
    what: 'link across nodes',
    prepare: async ({ volume, dirs }) => {
      await mk(volume, dirs[0]!, 'file');
    },
    act: async ({ volume, dirs }) => {
      const { ino } = await volume.lookup(root, dirs[0]!, name('file'));
      await volume.link(root, ino, dirs[2]!, name('second'));
    },
  },
  {
    what: 'rmdir of a directory on another node',
    act: ({ volume }) => volume.removeDirectory(root, 1, name('dir2'), closed),
  },
];

/** Everything that can be seen of the volume, in one text. */
async function picture(volume: Volume, ino = 1, path = ''): Promise<string> {
  const lines: string[] = [];
  const entries = await volume.readDirectory(root, ino, 0n, 1000, true);
  for (const entry of entries.sort((a, b) => a.name.compare(b.name))) {
    const at = `${path}/${entry.name.toString()}`;
    const { mode = 0, nlink = 0 } = entry.attributes ?? {};
    lines.push(`${at} ${entry.ino} ${mode.toString(8)} ${nlink}`);
    if (entry.type === 0o040000) lines.push(await picture(volume, entry.ino, at));
  }
  const { inodesUsed } = await volume.statistics();
  return [...lines.filter((line) => line !== ''), path === '' ? `inodes ${inodesUsed}` : '']
    .filter((line) => line !== '')
    .join('\n');
}

async function build(nodes: number, onStep: (step: string) => Promise<void>) {
  const engines = memoryEngines(nodes);
  const bench = await makeBench(engines, {}, { onStep, intentTimeoutMs: 30 });
  const { volume } = bench;
  const dirs: number[] = [];
  // Makes directories until each node holds one.
  for (let n = 0; dirs.filter((ino) => ino !== undefined).length < nodes; n++) {
    const { ino } = await volume.makeDirectory(root, 1, name(`candidate${n}`), 0o777);
    const node = bench.service.cluster.map.node(ino % 4096);
    if (dirs[node] !== undefined) continue;
    dirs[node] = ino;
    await volume.rename(root, 1, name(`candidate${n}`), 1, name(`dir${node}`), 0, closed);
  }
  return { engines, bench, world: { volume, dirs } };
}

/** Runs the scenario, stopping at step number `stopAt`; answers the picture before and how many steps there were. */
async function stopped(scenario: Scenario, stopAt: number) {
  let armed = false;
  let steps = 0;
  let at = '';
  const onStep = async (step: string): Promise<void> => {
    if (!armed || steps++ !== stopAt) return;
    at = step;
    armed = false;
    throw new Crash(step);
  };
  const { engines, bench, world } = await build(3, onStep);
  await scenario.prepare?.(world);
  const before = await picture(world.volume);
  await bench.volume.sync();
  armed = true;
  let crashed = false;
  try {
    await scenario.act(world);
  } catch (error) {
    if (!(error instanceof Crash)) throw error;
    crashed = true;
  }
  armed = false;
  return { engines, bench, world, before, crashed, at };
}

async function reopened(
  engines: readonly MemoryEngine[],
): Promise<{ service: MetadataService; volume: Volume }> {
  const service = await MetadataService.open(engines);
  return { service, volume: await service.volume('v') };
}

describe('a crash between every two steps of an operation across three nodes', () => {
  for (const scenario of scenarios) {
    test(scenario.what, async () => {
      const whole = await stopped(scenario, -1);
      expect(whole.crashed).toBe(false);
      for (let step = 0; ; step++) {
        for (const after of [
          'kill',
          'power loss',
          'power loss of even nodes',
          'power loss of odd nodes',
          'others go on',
        ] as const) {
          const run = await stopped(scenario, step);
          if (!run.crashed) {
            expect(step).toBeGreaterThanOrEqual(5);
            return;
          }
          const decided = !/^(read|prepared|synced)/.test(run.at);
          let view: { service: MetadataService; volume: Volume };
          if (after === 'others go on') view = run.bench;
          else {
            // Another node's unsynced writes may all have reached its disk.
            const loses = (node: number): boolean =>
              after === 'power loss' ||
              (after !== 'kill' && (node % 2 === 0) === after.endsWith('even nodes'));
            const survivors = run.engines.map((engine, node) =>
              engine.crash({ keep: loses(node) ? 'synced' : 'all' }),
            );
            view = await reopened(survivors);
          }
          // What an undecided operation has charged counts as used until somebody settles it.
          const shown = (text: string): string =>
            after === 'others go on' ? text.replace(/\ninodes \d+$/, '') : text;
          const now = shown(await picture(view.volume));
          const before = shown(run.before);
          const where = `${scenario.what}: ${after} at "${run.at}" (step ${step})`;
          // An undecided operation has not happened; a decided one has, unless the power went before its sync.
          if (!decided) expect(now, where).toBe(before);
          else if (!after.startsWith('power loss') || run.at !== 'decided') {
            expect(now, where).not.toBe(before);
          }
          if (after !== 'others go on') expect((await view.service.fsck('v')).findings, where).toEqual([]);
          // Life goes on everywhere, the same operation included (or it says that it is done).
          for (const text of ['dir0', 'dir1', 'dir2', 'later']) {
            await codeOf(view.volume.makeDirectory(root, 1, name(text), 0o755));
          }
          // What nobody has met is settled as the next start would.
          await settleAll(view.service.cluster);
          expect((await view.service.fsck('v')).findings, where).toEqual([]);
        }
      }
    });
  }

  test('on one node there is nothing to stop between', async () => {
    const seen: string[] = [];
    const { world } = await build(1, async (step) => {
      seen.push(step);
    });
    await mk(world.volume, world.dirs[0]!, 'f');
    await world.volume.rename(root, world.dirs[0]!, name('f'), 1, name('g'), 0, closed);
    expect(seen).toEqual([]);
  });
});

test('inode numbers and stripe ids are not handed out again after a power loss', async () => {
  const engines = memoryEngines(1);
  const { volume } = await makeBench(engines);
  await volume.sync();
  const seen = new Set<number>();
  const stripe = await volume.allocateStripeIds(root, 4);
  for (let n = 0; n < 10; n++) seen.add((await mk(volume, 1, `lost${n}`)).ino);
  const survivors = engines.map((engine) => engine.crash({ keep: 'synced' }));
  const again = await reopened(survivors);
  expect(await codeOf(again.volume.lookup(root, 1, name('lost0')))).toBe('ENOENT');
  for (let n = 0; n < 10; n++) expect(seen.has((await mk(again.volume, 1, `new${n}`)).ino)).toBe(false);
  expect(await again.volume.allocateStripeIds(root, 1)).toBeGreaterThanOrEqual(stripe + 4);
  // A clean end gives the rest of the range back.
  const { ino } = await mk(again.volume, 1, 'last');
  await again.service[Symbol.asyncDispose]();
  const next = await reopened(survivors);
  expect((await mk(next.volume, 1, 'next')).ino).toBe(ino + 4096);
});

test('the end of a session outlives the operations that it had prepared', async () => {
  let fenced = false;
  const engines = memoryEngines(3);
  const bench = await makeBench(
    engines,
    {},
    {
      onStep: async (step) => {
        if (step !== 'synced' || fenced) return;
        fenced = true;
        await setSession(engines, SESSION, EPOCH + 1);
      },
    },
  );
  const codes: string[] = [];
  for (let n = 0; n < 6 && !fenced; n++) {
    codes.push(await codeOf(bench.volume.makeDirectory(root, 1, name(`d${n}`), 0o755)));
  }
  expect(codes[codes.length - 1]).toBe('ESTALE');
  expect((await bench.service.fsck('v')).findings).toEqual([]);
  const entries = await bench.volume.readDirectory(root, 1, 0n, 10, false);
  expect(entries.length).toBe(codes.length - 1);
});
