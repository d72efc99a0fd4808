// Files made durable a second, when 64 writers each write one, wait for its fsync and take the next: through the group commit of
// fsyncs, and each by a call of its own (as many at once as libuv has threads). Beside them the sync of everything that
// unmounting does, after all were written.
//
//   npm run bench:fsync -- [--dir DIR] [--rounds N]
//
// Small files live in the cache's log, those of 128 KiB are sparse files of their own. --dir should be on the disk in question.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { type Cache, openCache } from '../bindings/cache.js';
import { GroupFsync } from '../src/gateway/group-fsync.js';
import { type Measurement, table } from './report.js';

const { values: options } = parseArgs({
  options: { dir: { type: 'string', default: tmpdir() }, rounds: { type: 'string', default: '5' } },
});
const SIZES = [
  { figure: '2000 files of 4 KiB', count: 2000, bytes: 4096 },
  { figure: '500 files of 128 KiB', count: 500, bytes: 128 << 10 },
] as const;
const WRITERS = 64;

type Write = (ino: number) => void;
const WAYS: Readonly<
  Record<string, (cache: Cache, write: Write, inos: readonly number[]) => Promise<unknown>>
> = {
  grouped(cache, write, inos) {
    const fsyncs = new GroupFsync(cache);
    return byWriters(inos, write, (ino) => fsyncs.sync(ino));
  },
  'one by one': (cache, write, inos) =>
    byWriters(inos, write, async (ino) => {
      const [error] = await cache.syncFiles(Float64Array.of(ino));
      if (error !== undefined) throw error;
    }),
  everything(cache, write, inos) {
    for (const ino of inos) write(ino);
    return cache.syncAll();
  },
};

/** So many at once, each of which writes a file, waits until it is durable, and takes the next. */
async function byWriters(inos: readonly number[], write: Write, sync: (ino: number) => Promise<void>) {
  let next = 0;
  async function writer(): Promise<void> {
    while (next < inos.length) {
      const ino = inos[next++]!;
      write(ino);
      await sync(ino);
    }
  }
  await Promise.all(Array.from({ length: WRITERS }, writer));
}

async function filesPerSecond(way: string, count: number, bytes: number): Promise<number> {
  const directory = mkdtempSync(join(resolve(options.dir), 'penstock-fsync-'));
  const budget = { budgetBytes: 2 ** 30, dirtyBudgetBytes: 2 ** 30 };
  const { cache } = await openCache({ directory, ...budget, identity: 'bench' });
  try {
    cache.grant(count * (bytes / 4096));
    const data = Buffer.alloc(bytes, 7);
    const time = { sec: 1, nsec: 0 };
    const inos = Array.from({ length: count }, (_, at) => 5000 + at);
    for (const ino of inos)
      cache.attach(ino, { size: 0, pages: 0, mtime: time, ctime: time, version: 0, isNew: true });
    const write = (ino: number) => {
      const { status } = cache.write(ino, 0, data);
      if (status !== 'done') throw new Error(`the write of inode ${ino} ended as ${status}`);
    };
    const begunMs = performance.now();
    await WAYS[way]!(cache, write, inos);
    return count / ((performance.now() - begunMs) / 1000);
  } finally {
    await cache.close();
    rmSync(directory, { recursive: true });
  }
}

const ways = Object.keys(WAYS);
const found = new Map<string, Measurement & { values: number[] }>();
for (let round = 0; round < Number(options.rounds); round += 1) {
  for (const { figure, count, bytes } of SIZES) {
    for (const peer of ways) {
      const key = `${figure} ${peer}`;
      if (!found.has(key)) found.set(key, { figure, unit: 'files/s', peer, values: [] });
      found.get(key)!.values.push(await filesPerSecond(peer, count, bytes));
    }
  }
}
process.stdout.write(`${table([...found.values()], ways, 'grouped')}\n`);
