// What a piece of work took, step by step.
import { expect, test } from 'vitest';
import { ManualClock } from '../../src/telemetry/clock.js';
import { Phases } from '../../src/telemetry/phases.js';

test('a phase lasts from the end of the one before, and one that comes again adds up', async () => {
  const clock = new ManualClock();
  await clock.advance(1000);
  const phases = new Phases(clock);
  await clock.advance(20);
  phases.end('cache');
  await clock.advance(3.4);
  phases.end('engine');
  await clock.advance(5);
  phases.end('cache');
  expect(Object.entries(phases.milliseconds)).toEqual([
    ['cache', 25],
    ['engine', 3],
  ]);
});
