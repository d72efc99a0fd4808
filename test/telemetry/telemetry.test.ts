// Clock, random source, logger and metrics: the ground that everything else takes as given.
import { describe, expect, test } from 'vitest';
import { ManualClock, systemClock } from '../../src/telemetry/clock.js';
import { createLogger } from '../../src/telemetry/logger.js';
import { Metrics } from '../../src/telemetry/metrics.js';
import { seededRandom, systemRandom } from '../../src/telemetry/random.js';

describe('clock', () => {
  test('a manual clock wakes sleepers in the order they are due', async () => {
    const clock = new ManualClock(1_000_000);
    const woken: string[] = [];
    void clock.sleep(20).then(() => woken.push('late'));
    void clock.sleep(10).then(async () => {
      woken.push(`early at ${clock.monotonicMs()}`);
      await clock.sleep(5);
      woken.push(`again at ${clock.monotonicMs()}`);
    });
    await clock.advance(9);
    expect(woken).toEqual([]);
    await clock.advance(30);
    expect(woken).toEqual(['early at 10', 'again at 15', 'late']);
    expect(clock.wallMs()).toBe(1_000_039);
  });

  test('an aborted sleep rejects with the reason, on either clock', async () => {
    for (const clock of [new ManualClock(), systemClock]) {
      const abort = new AbortController();
      const sleeping = clock.sleep(60_000, abort.signal);
      abort.abort(new Error('enough'));
      await expect(sleeping).rejects.toThrow('enough');
      await expect(clock.sleep(1, abort.signal)).rejects.toThrow('enough');
    }
  });
});

describe('random', () => {
  test('one seed is one sequence', () => {
    const draw = (seed: number) =>
      Array.from(
        { length: 100 },
        (
          (random) => () =>
            random.next32()
        )(seededRandom(seed)),
      );
    expect(draw(7)).toEqual(draw(7));
    expect(draw(7)).not.toEqual(draw(8));
  });

  test('below(n) covers 0..n-1 evenly', () => {
    const random = seededRandom(1);
    const seen = new Array<number>(10).fill(0);
    for (let i = 0; i < 100_000; i += 1) seen[random.below(10)]! += 1;
    for (const count of seen) expect(Math.abs(count - 10_000)).toBeLessThan(500);
    expect(() => random.below(0)).toThrow(RangeError);
    expect(systemRandom.below(1)).toBe(0);
  });
});

describe('logger', () => {
  test('JSON for machines, lines for people, one level for both', () => {
    const lines: string[] = [];
    const write = (line: string) => void lines.push(line);
    const json = createLogger({ write }).child({ volume: 'default' });
    json.debug({}, 'not at this level');
    json.warn({ retries: 3 }, 'cannot reach the store');
    expect(JSON.parse(lines[0]!)).toMatchObject({
      volume: 'default',
      retries: 3,
      msg: 'cannot reach the store',
    });
    createLogger({ write, human: true }).info({ path: 'a b', error: new Error('no') }, 'tried');
    expect(lines[1]).toMatch(/^\d\d:\d\d:\d\d info {2}tried {2}path="a b" error="no"\n$/);
    expect(lines).toHaveLength(2);
  });
});

describe('metrics', () => {
  test('a source is read when asked and gone when taken away', async () => {
    const metrics = new Metrics();
    let hits = 1;
    const remove = metrics.registerSource('cache', () => ({ readHits: hits }), { volume: 'default' });
    hits = 42;
    expect(await metrics.text()).toContain('penstock_cache_read_hits{volume="default"} 42');
    expect(metrics.sources()).toEqual([
      { name: 'cache', labels: { volume: 'default' }, counters: { readHits: 42 } },
    ]);
    remove();
    expect(await metrics.text()).not.toContain('read_hits{');
  });
});
