// The bulk pool: the same bytes as the plain functions of Node, over shared memory, on threads that wait in their event loop.
import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inflateRawSync } from 'node:zlib';
import { Piscina } from 'piscina';
import { afterAll, describe, expect, it } from 'vitest';
import { contentHash, LEAF_BYTES } from '../../src/storage/bulk/content-hash.js';
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

describe('the content hash', () => {
  const sourceOf = (content: Buffer, step = Number.POSITIVE_INFINITY) => ({
    size: content.length,
    read: async (offset: number, target: Uint8Array) =>
      content.copy(target, 0, offset, offset + Math.min(step, target.length)),
  });

  it('is SHA-256 over the leaves, however the bytes arrive', async () => {
    const content = randomBytes(2 * LEAF_BYTES + 12_345);
    const size = Buffer.alloc(8);
    size.writeBigUInt64BE(BigInt(content.length));
    const expected = createHash('sha256').update('penstock content 1').update(size);
    for (let at = 0; at < content.length; at += LEAF_BYTES) {
      expected.update(
        createHash('sha256')
          .update(content.subarray(at, at + LEAF_BYTES))
          .digest(),
      );
    }
    const hex = expected.digest('hex');
    const progress: number[] = [];
    const onBytes = (done: number) => progress.push(done);
    expect(await contentHash(pool, sourceOf(content), { onBytes })).toBe(hex);
    expect(progress.at(-1)).toBe(content.length);
    expect(await contentHash(pool, sourceOf(content, 70_001))).toBe(hex);
  });

  it('tells contents apart by their size and every byte', async () => {
    const contents = [
      Buffer.alloc(0),
      Buffer.alloc(1),
      Buffer.alloc(LEAF_BYTES),
      Buffer.alloc(LEAF_BYTES + 1),
    ];
    const changed = Buffer.alloc(LEAF_BYTES + 1);
    changed[LEAF_BYTES] = 1;
    const hashes = await Promise.all(
      [...contents, changed].map((content) => contentHash(pool, sourceOf(content))),
    );
    expect(new Set(hashes).size).toBe(5);
  });

  it('refuses a source that ends early', async () => {
    const source = { ...sourceOf(Buffer.alloc(10)), size: 20 };
    await expect(contentHash(pool, source)).rejects.toMatchObject({ code: 'EBADMSG' });
  });
});
