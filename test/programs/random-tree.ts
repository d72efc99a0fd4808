// A tree of files larger than the cache it is written through: small files, large ones, sparse ones, and large ones that
// were changed in the middle after they were written.
import { mkdir, open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/** Pseudo-random bytes, the same for the same seed (a 64-bit mix of the position). */
export function randomBytes(length: number, seed: number): Buffer {
  const words = new BigUint64Array(Math.ceil(length / 8));
  let state = BigInt(seed) * 0x9e3779b97f4a7c15n + 1n;
  for (let index = 0; index < words.length; index += 1) {
    state = (state * 6364136223846793005n + 1442695040888963407n) & 0xffffffffffffffffn;
    words[index] = state ^ (state >> 29n);
  }
  return Buffer.from(words.buffer, 0, length);
}

export interface TreeShape {
  readonly smallFiles: number;
  readonly largeFiles: number;
  readonly largeBytes: number;
}

export async function writeRandomTree(root: string, shape: TreeShape): Promise<void> {
  const block = randomBytes(1 << 20, 7);
  for (let index = 0; index < shape.smallFiles; index += 1) {
    const directory = join(root, `d${index % 20}`);
    await mkdir(directory, { recursive: true });
    const length = (index * 7919) % 70_000;
    await writeFile(join(directory, `small-${index}`), block.subarray(index % 4096, (index % 4096) + length));
  }
  for (let index = 0; index < shape.largeFiles; index += 1) {
    const file = await open(join(root, `large-${index}`), 'w');
    for (let at = 0; at < shape.largeBytes; at += block.length) {
      // Each block of each file differs, so that a misplaced one is seen.
      block.writeBigUInt64LE(BigInt(index * 2 ** 32 + at), 0);
      block.writeBigUInt64LE(BigInt(index * 2 ** 32 + at), block.length - 8);
      const length = Math.min(block.length, shape.largeBytes - at);
      await file.write(block, 0, length, at);
    }
    // Overwrites that straddle pages, a hole punched by growing, a shortened end.
    await file.write(block, 100, 9000, Math.floor(shape.largeBytes / 2) - 33);
    await file.write(block, 500, 5, Math.floor(shape.largeBytes / 3));
    if (index % 3 === 1) await file.truncate(shape.largeBytes - 12_345);
    if (index % 3 === 2) await file.write(block, 0, 4097, shape.largeBytes + 3_000_000);
    await file.sync();
    await file.close();
  }
}
