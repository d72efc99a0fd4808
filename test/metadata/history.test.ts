// Random histories. One after another: every answer and the final tree as the model says. At once, with answers of the engine
// delayed at random: whatever the order was, the invariants hold, and what each operation claimed is true of the whole.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { MemoryEngine } from '../../src/kv/memory-engine.js';
import { MetadataService } from '../../src/metadata/service.js';
import type { Volume } from '../../src/metadata/volume.js';
import { Model, type Node, Refused } from './model.js';
import { delays, generator, SCALE, TIMEOUT_MS } from './random.js';
import { closed, codeOf, makeBench, memoryEngines, name, opened, REG, root } from './support.js';

const TEXTS = ['a', 'b', 'c', 'd'];
const text = fc.constantFrom(...TEXTS);
const path = fc.array(text, { maxLength: 3 });

type Step =
  | {
      readonly op: 'create' | 'mkdir' | 'unlink' | 'rmdir' | 'lookup';
      readonly at: string[];
      readonly name: string;
    }
  | { readonly op: 'link'; readonly what: string[]; readonly at: string[]; readonly name: string }
  | {
      readonly op: 'rename';
      readonly at: string[];
      readonly name: string;
      readonly to: string[];
      readonly newName: string;
      readonly flags: number;
    };

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    op: fc.constantFrom('create', 'mkdir', 'mkdir', 'unlink', 'rmdir', 'lookup'),
    at: path,
    name: text,
  }) as fc.Arbitrary<Step>,
  fc.record({ op: fc.constant('link' as const), what: path, at: path, name: text }),
  fc.record({
    op: fc.constant('rename' as const),
    at: path,
    name: text,
    to: path,
    newName: text,
    flags: fc.constantFrom(0, 0, 0, 1, 2),
  }),
);

async function walk(volume: Volume, steps: readonly string[]): Promise<number> {
  let at = 1;
  for (const part of steps) at = (await volume.lookup(root, at, name(part))).ino;
  return at;
}

async function perform(volume: Volume, it: Step): Promise<void> {
  switch (it.op) {
    case 'create':
      await volume.makeNode(root, await walk(volume, it.at), name(it.name), REG | 0o644, 0);
      return;
    case 'mkdir':
      await volume.makeDirectory(root, await walk(volume, it.at), name(it.name), 0o755);
      return;
    case 'unlink':
      await volume.unlink(root, await walk(volume, it.at), name(it.name), closed);
      return;
    case 'rmdir':
      await volume.removeDirectory(root, await walk(volume, it.at), name(it.name), closed);
      return;
    case 'lookup':
      await volume.lookup(root, await walk(volume, it.at), name(it.name));
      return;
    case 'link':
      await volume.link(root, await walk(volume, it.what), await walk(volume, it.at), name(it.name));
      return;
    case 'rename': {
      const [from, to] = [await walk(volume, it.at), await walk(volume, it.to)];
      await volume.rename(root, from, name(it.name), to, name(it.newName), it.flags, closed);
    }
  }
}

function expected(model: Model, it: Step): void {
  switch (it.op) {
    case 'create':
    case 'mkdir':
      model.create(model.walk(it.at), it.name, it.op === 'mkdir');
      return;
    case 'unlink':
      model.unlink(model.walk(it.at), it.name);
      return;
    case 'rmdir':
      model.rmdir(model.walk(it.at), it.name);
      return;
    case 'lookup':
      model.walk([...it.at, it.name]);
      return;
    case 'link': {
      const what: Node = model.walk(it.what);
      model.link(what, model.walk(it.at), it.name);
      return;
    }
    case 'rename': {
      const [from, to] = [model.walk(it.at), model.walk(it.to)];
      model.rename(from, it.name, to, it.newName, it.flags);
    }
  }
}

function codeOfModel(model: Model, it: Step): string {
  try {
    expected(model, it);
    return 'none';
  } catch (error) {
    if (error instanceof Refused) return error.code;
    throw error;
  }
}

async function picture(volume: Volume, ino = 1, at = ''): Promise<string[]> {
  const lines: string[] = [];
  for (const entry of await volume.readDirectory(root, ino, 0n, 1000, true)) {
    const here = `${at}/${entry.name.toString()}`;
    const directory = entry.type === 0o040000;
    lines.push(`${here} ${directory ? 'd' : 'f'}${entry.attributes?.nlink}`);
    if (directory) lines.push(...(await picture(volume, entry.ino, here)));
  }
  return lines.sort();
}

describe('random histories', () => {
  for (const [nodes, runs] of [
    [1, 150],
    [3, 80],
  ] as const) {
    for (const bits of [62, 1]) {
      test(
        `as the model says, ${nodes} node(s), names of ${bits} hash bits`,
        async () => {
          await fc.assert(
            fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 60 }), async (steps) => {
              const bench = await makeBench(memoryEngines(nodes), { nameHashBits: bits });
              const model = new Model();
              for (const it of steps) {
                expect({ it, code: await codeOf(perform(bench.volume, it)) }).toEqual({
                  it,
                  code: codeOfModel(model, it),
                });
              }
              expect(await picture(bench.volume)).toEqual(model.picture());
              expect((await bench.service.fsck('v')).findings).toEqual([]);
            }),
            { numRuns: runs * SCALE },
          );
        },
        TIMEOUT_MS,
      );
    }

    test(
      `all at once on slow engines, ${nodes} node(s)`,
      async () => {
        await fc.assert(
          fc.asyncProperty(
            fc.array(step, { minLength: 8, maxLength: 40 }),
            fc.integer({ min: 1, max: 0x7fffffff }),
            async (steps, seed) => {
              const engines = memoryEngines(nodes);
              const quiet = await makeBench(engines);
              for (const top of TEXTS) await quiet.volume.makeDirectory(root, 1, name(top), 0o755);
              await quiet.service[Symbol.asyncDispose]();
              const random = generator(seed);
              const slow = engines.map(
                (engine): MemoryEngine =>
                  engine.crash({ keep: 'all', faults: { random, delay: delays(random) } }),
              );
              const service = await MetadataService.open(slow, { random });
              const volume = await service.volume('v');
              const codes = await Promise.all(steps.map((it) => codeOf(perform(volume, it))));
              for (const code of codes)
                expect(code).toMatch(/^(none|E(NOENT|EXIST|NOTDIR|ISDIR|NOTEMPTY|PERM|INVAL))$/);
              expect((await service.fsck('v')).findings).toEqual([]);
            },
          ),
          { numRuns: Math.ceil(runs / 4) * SCALE, endOnFailure: true },
        );
      },
      TIMEOUT_MS,
    );
  }

  test('orphans of open files, on three nodes, until the session ends', async () => {
    const bench = await makeBench(memoryEngines(3));
    const { volume } = bench;
    for (let n = 0; n < 12; n++) {
      const { ino } = await volume.makeDirectory(root, 1, name(`d${n}`), 0o755);
      await volume.makeNode(root, ino, name('f'), REG | 0o644, 0);
      await volume.rename(root, ino, name('f'), 1, name('f'), 0, opened);
    }
    const { findings, inodes } = await bench.service.fsck('v');
    expect(findings).toEqual([]);
    expect(inodes).toBe(1 + 12 + 12);
    await volume.endSession(root.session);
    expect((await bench.service.fsck('v')).inodes).toBe(1 + 12 + 1);
  });
});
