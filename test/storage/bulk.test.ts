// The bulk pool: the same bytes as the plain functions of Node, over shared memory, on threads that wait in their event loop.
import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Worker } from 'node:worker_threads';
import { inflateRawSync } from 'node:zlib';
import { Piscina } from 'piscina';
import { afterAll, describe, expect, it } from 'vitest';
import { type Content, contentHashes, LEAF_BYTES } from '../../src/storage/bulk/content-hash.js';
import { BulkPool, poolOptions, type SharedRange } from '../../src/storage/bulk/pool.js';

const pool = new BulkPool({ threads: 2, queueMax: 64 });
afterAll(() => pool[Symbol.asyncDispose]());

function shared(bytes: Uint8Array | number): SharedRange {
  const length = typeof bytes === 'number' ? bytes : bytes.length;
  const memory = new SharedArrayBuffer(length + 16);
  if (typeof bytes !== 'number') new Uint8Array(memory, 8, length).set(bytes);
  return { memory, offset: 8, length };
}

const bytesOf = ({ memory, offset, length }: SharedRange, count = length) =>
  Buffer.from(new Uint8Array(memory, offset, count));

/** The 8 bytes on both sides of a range are still zero. */
function expectMargins({ memory, offset, length }: SharedRange): void {
  const all = new Uint8Array(memory);
  expect([...all.subarray(0, offset), ...all.subarray(offset + length)]).toEqual(Array(16).fill(0));
}

describe('the bulk pool', () => {
  it('hashes ranges of shared memory', async () => {
    const contents = [Buffer.alloc(0), Buffer.from('x'), randomBytes(100_000)];
    const digests = await pool.hash(contents.map(shared));
    expect(digests.map((digest) => Buffer.from(digest).toString('hex'))).toEqual(
      contents.map((content) => createHash('sha256').update(content).digest('hex')),
    );
  });

  it('compresses into a target, says when it is not worth it, and gets the bytes back', async () => {
    const text = shared(Buffer.from('all work and no play '.repeat(5000)));
    const target = shared(text.length);
    const length = await pool.compress(text, target);
    expect(length).toBeLessThan(text.length / 10);
    expect(inflateRawSync(bytesOf(target, length)).equals(bytesOf(text))).toBe(true);
    const back = shared(text.length);
    expect(await pool.decompress({ ...target, length: length! }, back)).toBe(text.length);
    expect(bytesOf(back).equals(bytesOf(text))).toBe(true);
    for (const range of [text, target, back]) expectMargins(range);

    const noise = shared(randomBytes(10_000));
    const untouched = shared(10_000);
    expect(await pool.compress(noise, untouched)).toBeUndefined();
    expect(bytesOf(untouched).equals(Buffer.alloc(10_000))).toBe(true);
  });

  it('refuses damaged and oversized compressed bytes', async () => {
    const text = shared(Buffer.alloc(100_000));
    const target = shared(1000);
    const length = (await pool.compress(text, target))!;
    await expect(pool.decompress({ ...target, length }, shared(99_999))).rejects.toMatchObject({
      code: 'EBADMSG',
    });
    await expect(pool.decompress(shared(randomBytes(500)), shared(5000))).rejects.toMatchObject({
      code: 'EBADMSG',
    });
  });

  it('encrypts and decrypts, in place too, and hands over nothing that was changed', async () => {
    const secret = { key: randomBytes(32), nonce: randomBytes(12), context: Buffer.from('stripe 7, page 3') };
    const clear = randomBytes(50_000);
    const range = shared(clear);
    const tag = await pool.encrypt(range, range, secret);
    expect(bytesOf(range).equals(clear)).toBe(false);
    const target = shared(clear.length);
    for (const changed of [
      { ...secret, tag: randomBytes(16) },
      { ...secret, tag, context: Buffer.from('stripe 7, page 4') },
      { ...secret, tag, key: randomBytes(32) },
    ]) {
      await expect(pool.decrypt(range, target, changed)).rejects.toMatchObject({ code: 'EBADMSG' });
    }
    expect(bytesOf(target).equals(Buffer.alloc(clear.length))).toBe(true);
    await pool.decrypt(range, target, { ...secret, tag });
    expect(bytesOf(target).equals(clear)).toBe(true);
    expectMargins(range);
  });

  it('refuses what is no range, overlaps, or is no key', async () => {
    const range = shared(100);
    const invalid = { code: 'EINVAL' };
    expect(() => pool.hash([{ ...range, length: 1000 }])).toThrow(expect.objectContaining(invalid));
    expect(() => pool.compress(range, { ...range, offset: 50, length: 10 })).toThrow(
      expect.objectContaining(invalid),
    );
    const secret = { key: randomBytes(16), nonce: randomBytes(12), context: Buffer.alloc(0) };
    expect(() => pool.encrypt(range, range, secret)).toThrow(expect.objectContaining(invalid));
  });

  it('bounds its queue, and can be cancelled', async () => {
    await using small = new BulkPool({ threads: 1, queueMax: 2 });
    const big = shared(2 ** 24);
    const outcomes = await Promise.allSettled(Array.from({ length: 10 }, () => small.hash([big])));
    const refused = outcomes.filter(({ status }) => status === 'rejected');
    expect(refused.length).toBeGreaterThanOrEqual(7);
    for (const { reason } of refused as PromiseRejectedResult[])
      expect(reason).toMatchObject({ code: 'EAGAIN' });
    const controller = new AbortController();
    const cancelled = small.hash([big, big], controller.signal);
    controller.abort();
    await expect(cancelled).rejects.toMatchObject({ code: 'ECANCELED' });
  });

  it('leaves the main thread free', async () => {
    const big = shared(2 ** 26);
    let turns = 0;
    const timer = setInterval(() => turns++, 1);
    await pool.hash([big]);
    clearInterval(timer);
    expect(turns).toBeGreaterThan(5);
  });
});

describe('idle threads', () => {
  it('wait in their event loop, not in Atomics.wait: their timers run', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'penstock-bulk-'));
    const filename = join(directory, 'worker.mjs');
    const source =
      'export default (memory) => { setTimeout(() => { new Int32Array(memory)[0] = 1; }, 20); };';
    writeFileSync(filename, source);
    try {
      const memory = new SharedArrayBuffer(4);
      const idle = new Piscina(poolOptions(filename, { threads: 1 }));
      await idle.run(memory);
      await expect.poll(() => new Int32Array(memory)[0], { timeout: 20_000 }).toBe(1);
      await idle.destroy();
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});

describe('content hashes', () => {
  interface Bytes extends Content {
    readonly bytes: Buffer;
  }
  const contentOf = (
    bytes: Buffer,
    ranges: Content['ranges'] = [{ offset: 0, length: bytes.length }],
  ): Bytes => ({
    size: bytes.length,
    ranges,
    bytes,
    async read(offset, target) {
      // What lies beyond the end must not count.
      target.fill(0xff);
      bytes.copy(target, 0, offset, offset + target.length);
    },
  });
  const expected = (bytes: Buffer): string => {
    const number = (value: number) => {
      const encoded = Buffer.alloc(8);
      encoded.writeBigUInt64BE(BigInt(value));
      return encoded;
    };
    const hash = createHash('sha256').update('penstock content 1').update(number(bytes.length));
    for (let index = 0; index * LEAF_BYTES < bytes.length; index++) {
      const leaf = bytes.subarray(index * LEAF_BYTES, (index + 1) * LEAF_BYTES);
      if (leaf.equals(Buffer.alloc(leaf.length))) continue;
      hash.update(number(index)).update(createHash('sha256').update(leaf).digest());
    }
    return hash.digest('hex');
  };
  async function hashesOf(contents: Bytes[], options = {}): Promise<Array<string | Error>> {
    const hashes: Array<string | Error> = [];
    for await (const { content, hash } of contentHashes(pool, contents, options)) {
      expect(content).toBe(contents[hashes.length]);
      hashes.push(hash);
    }
    return hashes;
  }

  it('are SHA-256 over the leaves, in order, for contents of every size at once', async () => {
    const sizes = [2 * LEAF_BYTES + 12_345, 0, 1, 4095, 4096, 4097, LEAF_BYTES, LEAF_BYTES + 1, 100_000];
    const contents = [...sizes, ...Array(3000).fill(10)].map((size) => contentOf(randomBytes(size)));
    let read = 0;
    const hashes = await hashesOf(contents, { onBytes: (bytes: number) => (read += bytes) });
    expect(hashes).toEqual(contents.map(({ bytes }) => expected(bytes)));
    expect(read).toBe(contents.reduce((sum, { size }) => sum + size, 0));
  });

  it('are the same for holes and for the zeros they read as', async () => {
    const bytes = Buffer.alloc(3 * LEAF_BYTES + 100);
    bytes.write('x', LEAF_BYTES + 5);
    const hole = contentOf(bytes, [{ offset: LEAF_BYTES, length: 4096 }]);
    const nothing = contentOf(Buffer.alloc(5000), []);
    const hashes = await hashesOf([contentOf(bytes), hole, contentOf(Buffer.alloc(5000)), nothing]);
    expect(hashes[1]).toBe(hashes[0]);
    expect(hashes[3]).toBe(hashes[2]);
    expect(hashes[0]).toBe(expected(bytes));
    expect(await hashesOf([contentOf(Buffer.alloc(5001), [])])).not.toContain(hashes[2]);
  });

  it('stand for themselves: a content that cannot be read does not hold up the others', async () => {
    const broken = {
      ...contentOf(randomBytes(9 * 2 ** 20)),
      read: () => Promise.reject(new Error('damaged')),
    };
    const whole = contentOf(randomBytes(9 * 2 ** 20));
    const hashes = await hashesOf([whole, broken, whole]);
    expect(hashes).toEqual([expected(whole.bytes), new Error('damaged'), expected(whole.bytes)]);
  });

  it('end when they are cancelled, with nothing left running', async () => {
    const controller = new AbortController();
    let reading = 0;
    const slow = (): Bytes => ({
      ...contentOf(randomBytes(LEAF_BYTES)),
      async read() {
        reading += 1;
        await new Promise((resolve) => setTimeout(resolve, 20));
        reading -= 1;
        controller.abort(new Error('interrupted'));
      },
    });
    const hashing = hashesOf(Array.from({ length: 50 }, slow), { signal: controller.signal });
    await expect(hashing).rejects.toThrow(/interrupted|cancelled/);
    expect(reading).toBe(0);
  });

  it('survive a thread that dies under them', async () => {
    const workers: Worker[] = [];
    const onWorker = (worker: Worker) => workers.push(worker);
    process.on('worker', onWorker);
    try {
      await using mortal = new BulkPool({ threads: 1 });
      const contents = Array.from({ length: 40 }, () => contentOf(randomBytes(LEAF_BYTES)));
      const hashes: Array<string | Error> = [];
      for await (const { hash } of contentHashes(mortal, contents)) {
        hashes.push(hash);
        if (hashes.length === 5) void workers[0]!.terminate();
      }
      expect(hashes).toEqual(contents.map(({ bytes }) => expected(bytes)));
      expect(workers.length).toBeGreaterThan(1);
      expect(mortal.stats()).toMatchObject({ threadsLost: 1, failed: 0 });
    } finally {
      process.off('worker', onWorker);
    }
  });
});
