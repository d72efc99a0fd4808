// Which store should carry the embedded key-value engine? Times what a metadata operation does, on each candidate in turn:
// synchronous reads on the main thread, a small batch written to the log without a sync, a sync of the log.
//
//   node_modules/.bin/tsc -p . --outDir build/js && node build/js/bench/kv-engines.js [--dir DIR] [--peers DIR]
//
// --dir: a directory on the disk to be measured (default: the system's temporary one). --peers: a directory where
// `npm install @nxtedition/rocksdb lmdb classic-level` was run; without it only our own engines are measured.
// Prints the median of 5 interleaved rounds, in microseconds, and the ratio to the embedded engine.

import { mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import type { KvEngine } from '../src/kv/engine.js';
import { MemoryEngine } from '../src/kv/memory-engine.js';
import { RocksEngine } from '../src/kv/rocks-engine.js';

const KEYS = 200_000;
const VALUE = Buffer.alloc(120, 'attributes');
const ROUNDS = 5;
const OPERATIONS = 4000;
const SYNCS = 20;

type Pair = readonly [Buffer, Buffer];

interface Candidate {
  readonly name: string;
  get(key: Buffer): unknown;
  /** Absent where there is no synchronous one. */
  scan?(start: Buffer, end: Buffer, limit: number): unknown;
  /** Reads, then writes: atomic, in the log, not synced. */
  transact(gets: readonly Buffer[], pairs: readonly Pair[]): Promise<void> | void;
  sync(): Promise<void> | void;
  close(): Promise<void>;
}

const makeKey = (n: number): Buffer => {
  const bytes = Buffer.allocUnsafe(17);
  bytes[0] = 1;
  // Spread, as hashed names are.
  bytes.writeBigUInt64BE((BigInt(n) * 0x9e3779b97f4a7c15n) & 0xffff_ffff_ffff_ffffn, 1);
  bytes.writeBigUInt64BE(BigInt(n), 9);
  return bytes;
};

/** Made beforehand, so that only engines are timed. */
const keys = Array.from({ length: 4 * KEYS }, (_, n) => makeKey(n));
const key = (n: number): Buffer => keys[n % keys.length] as Buffer;

function own(name: string, engine: KvEngine): Candidate {
  return {
    name,
    get: (k) => engine.transact((txn) => void txn.get(k)),
    scan: (start, end, limit) => engine.transact((txn) => void txn.scan({ start, end, limit })),
    transact: (gets, pairs) =>
      engine.transact((txn) => {
        for (const k of gets) txn.get(k);
        for (const [k, v] of pairs) txn.put(k, v);
      }),
    sync: () => engine.sync(),
    close: async () => engine[Symbol.asyncDispose](),
  };
}

/** The peers are not dependencies; what is used of them is declared here. */
interface NxtRocks {
  open(): Promise<void>;
  _getManySync(keys: Buffer[], options: object): unknown[];
  querySync(options: object): unknown;
  _chainedBatch(): {
    _put(k: Buffer, v: Buffer, options: object): void;
    _writeSync(options: object): void;
    _closeSync(): void;
  };
  close(): Promise<void>;
}
interface Lmdb {
  getBinary(k: Buffer): unknown;
  getRange(options: object): { asArray: unknown[] };
  transactionSync(work: () => void): void;
  putSync(k: Buffer, v: Buffer): void;
  close(): Promise<void>;
}
interface ClassicLevel {
  open(): Promise<void>;
  getSync(k: Buffer): unknown;
  batch(operations: object[], options: object): Promise<void>;
  close(): Promise<void>;
}

async function peers(directory: string, from: string): Promise<Candidate[]> {
  const load = createRequire(join(resolve(from), 'package.json'));
  const { RocksLevel } = load('@nxtedition/rocksdb') as {
    RocksLevel: new (path: string, options: object) => NxtRocks;
  };
  const rocks = new RocksLevel(join(directory, 'nxtedition'), {
    keyEncoding: 'buffer',
    valueEncoding: 'buffer',
  });
  await rocks.open();
  const writeRocks = (pairs: readonly Pair[], sync: boolean): void => {
    const batch = rocks._chainedBatch();
    for (const [k, v] of pairs) batch._put(k, v, {});
    batch._writeSync({ sync });
    batch._closeSync();
  };
  const { open: openLmdb } = load('lmdb') as { open(options: object): Lmdb };
  const encoding = { keyEncoding: 'binary', encoding: 'binary' };
  const lmdb = (name: string, noSync: boolean): Candidate => {
    const db = openLmdb({ path: join(directory, name), noSync, overlappingSync: false, ...encoding });
    return {
      name,
      get: (k) => db.getBinary(k),
      scan: (start, end, limit) => db.getRange({ start, end, limit }).asArray,
      transact: (gets, pairs) =>
        db.transactionSync(() => {
          for (const k of gets) db.getBinary(k);
          for (const [k, v] of pairs) db.putSync(k, v);
        }),
      sync: () => {},
      close: () => db.close(),
    };
  };
  const { ClassicLevel } = load('classic-level') as {
    ClassicLevel: new (path: string, options: object) => ClassicLevel;
  };
  const level = new ClassicLevel(join(directory, 'level'), {
    keyEncoding: 'buffer',
    valueEncoding: 'buffer',
  });
  await level.open();
  const operations = (pairs: readonly Pair[]): object[] =>
    pairs.map(([k, v]) => ({ type: 'put', key: k, value: v }));
  return [
    {
      name: '@nxtedition/rocksdb',
      get: (k) => rocks._getManySync([k], {}),
      scan: (gte, lt, limit) =>
        rocks.querySync({ gte, lt, limit, keyEncoding: 'buffer', valueEncoding: 'buffer' }),
      transact: (gets, pairs) => {
        for (const k of gets) rocks._getManySync([k], {});
        writeRocks(pairs, false);
      },
      // It has no call that syncs the log; a synced write of a key does it, on this thread.
      sync: () => writeRocks([[Buffer.from([0]), Buffer.from([0])]], true),
      close: () => rocks.close(),
    },
    lmdb('lmdb noSync', true),
    lmdb('lmdb', false),
    {
      name: 'classic-level',
      get: (k) => level.getSync(k),
      transact: (gets, pairs) => {
        for (const k of gets) level.getSync(k);
        return level.batch(operations(pairs), {});
      },
      sync: () => level.batch(operations([[Buffer.from([0]), Buffer.from([0])]]), { sync: true }),
      close: () => level.close(),
    },
  ];
}

const MEASURES: Record<string, (candidate: Candidate, round: number) => Promise<number>> = {
  get: (candidate, round) => time(OPERATIONS, (i) => candidate.get(key((i * 7919 + round) % KEYS))),
  'get absent': (candidate, round) =>
    time(OPERATIONS, (i) => candidate.get(key(3 * KEYS + KEYS / 2 + i + round))),
  'scan 10': (candidate, round) =>
    time(OPERATIONS / 4, (i) => candidate.scan?.(key((i * 7919 + round) % KEYS), Buffer.from([2]), 10)),
  'commit of 4 puts': (candidate, round) =>
    time(OPERATIONS / 4, (i) => candidate.transact([], fourPairs(KEYS + round * OPERATIONS + i * 4))),
  'create: 5 gets, 4 puts': (candidate, round) =>
    time(OPERATIONS / 4, (i) =>
      candidate.transact(fiveKeys(i), fourPairs(2 * KEYS + round * OPERATIONS + i * 4)),
    ),
  'commit of 4 puts, then sync': (candidate, round) =>
    time(SYNCS, async (i) => {
      await candidate.transact([], fourPairs(3 * KEYS + round * OPERATIONS + i * 4));
      await candidate.sync();
    }),
};

const fiveKeys = (i: number): Buffer[] => [0, 1, 2, 3, 4].map((g) => key((i * 104_729 + g * 1013) % KEYS));
const fourPairs = (n: number): Pair[] => [0, 1, 2, 3].map((i) => [key(n + i), VALUE]);

/** Microseconds per call. */
async function time(calls: number, work: (i: number) => unknown): Promise<number> {
  const start = process.hrtime.bigint();
  for (let i = 0; i < calls; i += 1) {
    const pending = work(i);
    if (pending instanceof Promise) await pending;
  }
  return Number(process.hrtime.bigint() - start) / 1000 / calls;
}

const median = (samples: number[]): number =>
  samples.sort((a, b) => a - b)[samples.length >> 1] ?? Number.NaN;

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { dir: { type: 'string' }, peers: { type: 'string' } } });
  const directory = mkdtempSync(join(values.dir ?? tmpdir(), 'kv-engines-'));
  const embedded = await RocksEngine.open(join(directory, 'own'));
  const candidates = [own('penstock rocksdb', embedded), own('penstock memory', new MemoryEngine())];
  if (values.peers !== undefined) candidates.push(...(await peers(directory, values.peers)));
  for (const candidate of candidates) {
    for (let n = 0; n < KEYS; n += 1000) {
      await candidate.transact(
        [],
        Array.from({ length: 1000 }, (_, i) => [key(n + i), VALUE] as const),
      );
    }
    await candidate.sync();
  }
  const samples = new Map<string, number[]>();
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const [measure, run] of Object.entries(MEASURES)) {
      for (const candidate of candidates) {
        if (measure === 'scan 10' && candidate.scan === undefined) continue;
        const id = `${measure}|${candidate.name}`;
        samples.set(id, [...(samples.get(id) ?? []), await run(candidate, round)]);
      }
    }
  }
  for (const measure of Object.keys(MEASURES)) {
    console.log(`\n${measure}`);
    const base = median(samples.get(`${measure}|penstock rocksdb`) ?? []);
    for (const { name } of candidates) {
      if (!samples.has(`${measure}|${name}`)) continue;
      const us = median(samples.get(`${measure}|${name}`) ?? []);
      console.log(
        `  ${name.padEnd(22)}${us.toFixed(2).padStart(10)} us ${(us / base).toFixed(2).padStart(8)} x`,
      );
    }
  }
  for (const candidate of candidates) await candidate.close();
  rmSync(directory, { recursive: true });
}

await main();
