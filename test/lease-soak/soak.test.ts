// The soak of the lease agents in its short form; `npm run lease:soak` goes on for longer.
import { beforeAll, expect, test } from 'vitest';
import { runSetup } from '../support/run-setup.js';
import { soak } from './soak.js';

beforeAll(runSetup, 600_000);

test('faults at random: nobody holds what another holds, and all goes on', { timeout: 400_000 }, async () => {
  const seed = Date.now() % 1_000_000;
  const told: string[] = [];
  try {
    const { uses } = await soak({ seconds: 20, seed, onFault: (line) => told.push(line) });
    expect(uses).toBeGreaterThan(100);
  } catch (error) {
    throw new Error(`seed ${seed}, after ${told.join('; ')}`, { cause: error });
  }
});
