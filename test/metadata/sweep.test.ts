// Removed files of very many stripes, whose stripes a sweep in the background releases: whoever asks for one gets it, however
// its request falls into the end of the one before.
import { expect, test } from 'vitest';
import { STRIPES_PER_TRANSACTION } from '../../src/metadata/remove.js';
import type { Volume } from '../../src/metadata/volume.js';
import { closed, makeBench, memoryEngines, name, REG, root } from './support.js';

const MIB = 2 ** 20;
/** More turns of the microtask queue than an unlink and the sweep after it take. */
const TURNS = 40;

async function createLarge(volume: Volume, text: string): Promise<void> {
  const { ino } = await volume.makeNode(root, 1, name(text), REG | 0o644, 0);
  const count = STRIPES_PER_TRANSACTION + 1;
  const first = await volume.allocateStripeIds(root, count);
  const stripes = Array.from({ length: count }, (_, n) => ({
    offset: n * MIB,
    length: MIB,
    id: first + n,
    version: 1,
    node: 1,
  }));
  const time = { sec: 1, nsec: 0 };
  const publish = { ino, baseVersion: 0, size: 1, pages: 1, mtime: time, ctime: time, removedStripes: [] };
  await volume.publish(root, [{ ...publish, stripes }]);
}

test('a sweep that is asked for while another ends is done', async () => {
  for (let turns = 0; turns < TURNS; turns++) {
    const { volume } = await makeBench(memoryEngines(1));
    await createLarge(volume, 'a');
    await createLarge(volume, 'b');
    const first = volume.unlink(root, 1, name('a'), closed);
    for (let n = 0; n < turns; n++) await undefined;
    await volume.unlink(root, 1, name('b'), closed);
    await first;
    await new Promise((resolve) => setImmediate(resolve));
    expect((await volume.statistics()).bytesUsed, `${turns} turns apart`).toBe(0);
  }
});
