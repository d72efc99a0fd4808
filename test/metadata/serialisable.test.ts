// Strict serialisability: a handful of operations at once, on engines that answer late; then some order of them must explain
// every answer and the final tree. All begin before any ends, so that any order is allowed by real time.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { MemoryEngine } from '../../src/kv/memory-engine.js';
import { MetadataService } from '../../src/metadata/service.js';
import type { Volume } from '../../src/metadata/volume.js';
import { Model, type Node, Refused } from './model.js';
import { delays, generator, SCALE, TIMEOUT_MS } from './random.js';
import { closed, codeOf, makeBench, memoryEngines, name, REG, root } from './support.js';

/** Directories 1..4 lie in the root (0), with file "f" in each. */
const TOPS = ['a', 'b', 'c', 'd'];
const TEXTS = [...TOPS, 'f'];
const place = fc.nat({ max: TOPS.length });
const text = fc.constantFrom(...TEXTS);

const operation = fc.oneof(
  fc.record({ op: fc.constantFrom('create', 'mkdir', 'unlink', 'rmdir', 'lookup'), at: place, name: text }),
  fc.record({ op: fc.constant('link'), at: place, name: text, from: fc.nat({ max: 3 }) }),
  fc.record({
    op: fc.constant('rename'),
    at: place,
    name: text,
    to: place,
    newName: text,
    flags: fc.constantFrom(0, 0, 1, 2),
  }),
  fc.record({
    op: fc.constant('rename'),
    at: fc.constant(0),
    name: text,
    to: fc.integer({ min: 1, max: 4 }),
    newName: text,
    flags: fc.constantFrom(0, 2),
  }),
) as fc.Arbitrary<Operation>;

interface Operation {
  readonly op: string;
  readonly at: number;
  readonly name: string;
  readonly from?: number;
  readonly to?: number;
  readonly newName?: string;
  readonly flags?: number;
}

interface Places {
  readonly directories: readonly number[];
  readonly files: readonly number[];
}

function perform(volume: Volume, { directories, files }: Places, it: Operation): Promise<unknown> {
  const at = directories[it.at]!;
  const text = name(it.name);
  if (it.op === 'create') return volume.makeNode(root, at, text, REG | 0o644, 0);
  if (it.op === 'mkdir') return volume.makeDirectory(root, at, text, 0o755);
  if (it.op === 'unlink') return volume.unlink(root, at, text, closed);
  if (it.op === 'rmdir') return volume.removeDirectory(root, at, text, closed);
  if (it.op === 'lookup') return volume.lookup(root, at, text);
  if (it.op === 'link') return volume.link(root, files[it.from!]!, at, text);
  return volume.rename(root, at, text, directories[it.to!]!, name(it.newName!), it.flags!, closed);
}

function expectedCode(model: Model, nodes: { directories: Node[]; files: Node[] }, it: Operation): string {
  const at = nodes.directories[it.at]!;
  try {
    if (it.op === 'create' || it.op === 'mkdir') model.create(at, it.name, it.op === 'mkdir');
    else if (it.op === 'unlink') model.unlink(at, it.name);
    else if (it.op === 'rmdir') model.rmdir(at, it.name);
    else if (it.op === 'lookup') model.lookup(at, it.name);
    else if (it.op === 'link') model.link(nodes.files[it.from!]!, at, it.name);
    else model.rename(at, it.name, nodes.directories[it.to!]!, it.newName!, it.flags!);
    return 'none';
  } catch (error) {
    if (error instanceof Refused) return error.code;
    throw error;
  }
}

function freshModel() {
  const model = new Model();
  const directories = [model.root, ...TOPS.map((top) => model.create(model.root, top, true))];
  const files = directories.slice(1).map((directory) => model.create(directory, 'f', false));
  return { model, nodes: { directories, files } };
}

function* permutations(count: number): Generator<number[]> {
  const pick = function* (left: number[], picked: number[]): Generator<number[]> {
    if (left.length === 0) yield picked;
    for (const next of left) {
      yield* pick(
        left.filter((other) => other !== next),
        [...picked, next],
      );
    }
  };
  yield* pick([...Array(count).keys()], []);
}

function explained(operations: readonly Operation[], codes: readonly string[], final: string): boolean {
  for (const order of permutations(operations.length)) {
    const { model, nodes } = freshModel();
    if (order.every((at) => expectedCode(model, nodes, operations[at]!) === codes[at])) {
      if (model.picture().join('\n') === final) return true;
    }
  }
  return false;
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

for (const [nodes, runs] of [
  [1, 60],
  [3, 120],
] as const) {
  test(
    `some order explains what concurrent operations answered, ${nodes} node(s)`,
    async () => {
      await fc.assert(
        fc.asyncProperty(
          fc.array(operation, { minLength: 2, maxLength: 5 }),
          fc.integer({ min: 1, max: 0x7fffffff }),
          async (operations, seed) => {
            const engines = memoryEngines(nodes);
            const quiet = await makeBench(engines);
            const directories = [1];
            const files: number[] = [];
            for (const top of TOPS) {
              const { ino } = await quiet.volume.makeDirectory(root, 1, name(top), 0o755);
              directories.push(ino);
              files.push((await quiet.volume.makeNode(root, ino, name('f'), REG | 0o644, 0)).ino);
            }
            await quiet.service[Symbol.asyncDispose]();
            const random = generator(seed);
            const slow = engines.map(
              (engine): MemoryEngine =>
                engine.crash({ keep: 'all', faults: { random, delay: delays(random) } }),
            );
            const service = await MetadataService.open(slow, { random });
            const volume = await service.volume('v');
            const codes = await Promise.all(
              operations.map((it) => codeOf(perform(volume, { directories, files }, it))),
            );
            const final = (await picture(volume)).join('\n');
            expect((await service.fsck('v')).findings).toEqual([]);
            expect(explained(operations, codes, final), `${codes.join(' ')}\n${final}`).toBe(true);
          },
        ),
        { numRuns: runs * SCALE },
      );
    },
    TIMEOUT_MS,
  );
}
