// How long a metadata operation takes, end to end through the service, one at a time on one thread.
//
//   node_modules/.bin/tsc -p . --outDir build/js && node build/js/bench/metadata-ops.js [--dir DIR] [--count N] [--nodes N]
//
// Engines: memory, and the embedded one on --dir (default: the system's temporary directory). Prints microseconds an
// operation (median of 5 interleaved rounds) and operations a second; no sync is waited for, as in the mount.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import type { KvEngine } from '../src/kv/engine.js';
import { MemoryEngine } from '../src/kv/memory-engine.js';
import { RocksEngine } from '../src/kv/rocks-engine.js';
import type { Caller, Publish } from '../src/metadata/contract.js';
import { sessionKey } from '../src/metadata/keys.js';
import { MetadataService } from '../src/metadata/service.js';
import { encodeSessionFence, SessionState } from '../src/metadata/session-fence.js';
import { formatStore } from '../src/metadata/store.js';
import type { Volume } from '../src/metadata/volume.js';

const ROUNDS = 5;
const caller: Caller = { session: 4097, epoch: 1, uid: 1000, gid: 1000, umask: 0o022 };
const MODE = 0o100644;

interface Candidate {
  readonly name: string;
  readonly volume: Volume;
  readonly times: Map<string, number[]>;
}

const { values: options } = parseArgs({
  options: {
    dir: { type: 'string', default: tmpdir() },
    count: { type: 'string', default: '4000' },
    nodes: { type: 'string', default: '1' },
  },
});
const count = Number(options.count);
const nodes = Number(options.nodes);
const directory = mkdtempSync(join(resolve(options.dir), 'penstock-metadata-ops-'));
const names = Array.from({ length: count }, (_, n) => Buffer.from(`file-${n}.dat`));
const moved = Array.from({ length: count }, (_, n) => Buffer.from(`moved-${n}.dat`));
const isOpen = (): boolean => false;

async function candidate(name: string, engines: KvEngine[]): Promise<Candidate> {
  await formatStore(engines);
  for (const engine of engines) {
    await engine.transact((txn) => txn.put(sessionKey(4097), encodeSessionFence(1, SessionState.Live)));
  }
  const service = await MetadataService.open(engines);
  await service.createVolume('bench');
  return { name, volume: await service.volume('bench'), times: new Map() };
}

async function timed(to: Candidate, what: string, each: (n: number) => Promise<unknown>): Promise<void> {
  const begin = performance.now();
  for (let n = 0; n < count; n++) await each(n);
  const times = to.times.get(what) ?? [];
  times.push(((performance.now() - begin) * 1000) / count);
  to.times.set(what, times);
}

async function round(to: Candidate, number: number): Promise<void> {
  const { volume } = to;
  const { ino: parent } = await volume.makeDirectory(caller, 1, Buffer.from(`round-${number}`), 0o755);
  const inos: number[] = [];
  await timed(to, 'lookup, absent', (n) => volume.lookup(caller, parent, names[n]!).catch(() => undefined));
  await timed(to, 'create', async (n) => {
    inos.push((await volume.makeNode(caller, parent, names[n]!, MODE, 0)).ino);
  });
  await timed(to, 'lookup', (n) => volume.lookup(caller, parent, names[n]!));
  await timed(to, 'getattr', (n) => volume.getAttributes(caller, inos[n]!));
  await timed(to, 'chmod', (n) => volume.setAttributes(caller, inos[n]!, { mode: 0o600 }));
  const time = { sec: 1, nsec: 0 };
  const publish = (n: number): Publish => ({
    ino: inos[n]!,
    baseVersion: 0,
    size: 4096,
    pages: 1,
    mtime: time,
    ctime: time,
    stripes: [{ offset: 0, length: 2 ** 20, id: inos[n]!, version: 1, node: 1 }],
    removedStripes: [],
  });
  await timed(to, 'publish, one file', (n) => volume.publish(caller, [publish(n)]));
  await timed(to, 'rename', (n) => volume.rename(caller, parent, names[n]!, parent, moved[n]!, 0, isOpen));
  await timed(to, 'unlink', (n) => volume.unlink(caller, parent, moved[n]!, isOpen));
  await timed(to, 'mkdir', (n) => volume.makeDirectory(caller, parent, names[n]!, 0o755));
  await timed(to, 'rmdir', (n) => volume.removeDirectory(caller, parent, names[n]!, isOpen));
}

const median = (times: readonly number[]): number => [...times].sort((a, b) => a - b)[times.length >> 1]!;

async function main(): Promise<void> {
  const memory = Array.from({ length: nodes }, () => new MemoryEngine());
  const embedded: RocksEngine[] = [];
  for (let node = 0; node < nodes; node++) {
    embedded.push(await RocksEngine.open(join(directory, String(node))));
  }
  const candidates = [await candidate('memory', memory), await candidate('embedded', embedded)];
  for (let number = 0; number < ROUNDS; number++) for (const each of candidates) await round(each, number);
  console.log(
    `${'µs an operation (operations/s)'.padEnd(32)}${candidates.map(({ name }) => name.padStart(20)).join('')}`,
  );
  for (const what of candidates[0]!.times.keys()) {
    const cells = candidates.map(({ times }) => {
      const micros = median(times.get(what)!);
      return `${micros.toFixed(1)} (${Math.round(1e6 / micros)})`.padStart(20);
    });
    console.log(what.padEnd(32) + cells.join(''));
  }
  for (const engine of embedded) await engine[Symbol.asyncDispose]();
}

try {
  await main();
} finally {
  rmSync(directory, { recursive: true, force: true });
}
