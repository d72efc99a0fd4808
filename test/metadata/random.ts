// Randomness of the tests in this folder: a generator that a seed repeats, and how much longer than usual to look.

/** PENSTOCK_TEST_SCALE=100 runs a hundred times as many random histories. */
export const SCALE = Number(process.env.PENSTOCK_TEST_SCALE ?? '1');
export const TIMEOUT_MS = 180_000 * Math.max(1, SCALE);

/** xorshift32: uniform in [0, 1). */
export function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

/** Half of the answers come a turn of the event loop later. */
export const delays = (random: () => number) => (): Promise<void> | undefined =>
  random() < 0.5 ? undefined : new Promise((resolve) => setImmediate(resolve));
