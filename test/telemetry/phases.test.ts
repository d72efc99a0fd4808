// What a piece of work took, step by step.
import { expect, test } from 'vitest';
import { ManualClock } from '../../src/telemetry/clock.js';
import { Phases } from '../../src/telemetry/phases.js';

test('a phase lasts from its own begin to its own end, and one that comes again adds up', async () => {
  const clock = new ManualClock();
  const phases = new Phases(clock);
  let open: (word: string) => void = () => undefined;
  const cacheIsOpen = phases.during('cache', () => new Promise<string>((resolve) => (open = resolve)));
  await clock.advance(20);
  await phases.during('storage', () => clock.advance(3.4));
  open('open');
  expect(await cacheIsOpen).toBe('open');
  await clock.advance(7);
  await phases.during('storage', () => clock.advance(2));
  expect(Object.entries(phases.milliseconds)).toEqual([
    ['cache', 23],
    ['storage', 5],
  ]);
});

test('a phase that fails has taken its time too', async () => {
  const clock = new ManualClock();
  const phases = new Phases(clock);
  const failing = phases.during('cache', async () => {
    await clock.advance(4);
    throw new Error('damaged');
  });
  await expect(failing).rejects.toThrow('damaged');
  expect(phases.milliseconds).toEqual({ cache: 4 });
});
