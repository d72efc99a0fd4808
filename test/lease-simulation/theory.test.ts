// The queues behave as theory says: mean times of M/M/1, M/M/c and M/G/1 under sharing, within what chance allows.
import { expect, test } from 'vitest';
import { random } from '../../bench/lease/policies/random.js';
import type { Scenario } from '../../bench/lease/scenario.js';
import { scenarioNamed } from '../../bench/lease/scenarios.js';
import type { ServiceTime } from '../../bench/lease/simulator/distributions.js';
import { type Discipline, Producer } from '../../bench/lease/simulator/producer.js';
import { Simulation } from '../../bench/lease/simulator/simulation.js';
import { interval } from '../../bench/lease/statistics.js';

const SEEDS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
const MEAN_MS = 10;

function world(cores: number, load: number, discipline: Discipline, serviceTime: ServiceTime): Scenario {
  return {
    ...scenarioNamed('even'),
    fleet: {
      producers: 1,
      machines: [{ cores, speed: 1 }],
      discipline,
      promise: 'exact',
      inFlightPerCoreMax: 10_000,
    },
    load,
    serviceTime,
    warmupMs: 20_000,
    durationMs: 200_000 / cores,
    deadlineMs: 1e9,
    roundTripMs: 0,
  };
}

/** Erlang's C: the share of customers that wait in M/M/c. */
function erlangC(servers: number, load: number): number {
  const offered = servers * load;
  let term = 1;
  let sum = 1;
  for (let k = 1; k < servers; k += 1) {
    term *= offered / k;
    sum += term;
  }
  const last = (term * offered) / servers / (1 - load);
  return last / (sum + last);
}

test.each([
  ['M/M/1, 50 %', 1, 0.5, 'fifo', 'exponential'],
  ['M/M/1, 80 %', 1, 0.8, 'fifo', 'exponential'],
  ['M/M/4, 80 %', 4, 0.8, 'fifo', 'exponential'],
  ['M/M/2 under sharing, 70 %', 2, 0.7, 'sharing', 'exponential'],
  // Sharing is insensitive to all but the mean of the service time (Sakata, Noguchi, Oizumi 1971).
  ['M/G/1 under sharing, lognormal, 70 %', 1, 0.7, 'sharing', 'lognormal'],
] as const)('%s', { timeout: 240_000 }, (_name, cores, load, discipline, kind) => {
  const serviceTime: ServiceTime =
    kind === 'lognormal' ? { kind, meanMs: MEAN_MS, cv: 1 } : { kind, meanMs: MEAN_MS };
  const scenario = world(cores, load, discipline, serviceTime);
  const expected = MEAN_MS + (erlangC(cores, load) * MEAN_MS) / (cores * (1 - load));
  const seen = interval(SEEDS.map((seed) => new Simulation(scenario, random, seed).run().meanMs));
  expect(Math.abs(seen.mean - expected)).toBeLessThan(1.5 * seen.half);
  expect(seen.half / expected).toBeLessThan(0.12);
});

test('utilisation is load', () => {
  const scenario = world(2, 0.6, 'sharing', { kind: 'exponential', meanMs: MEAN_MS });
  const seen = interval(SEEDS.map((seed) => new Simulation(scenario, random, seed).run().utilisation));
  expect(Math.abs(seen.mean - 0.6)).toBeLessThan(1.5 * seen.half);
});

test('sharing by hand: two operations on one core, then a theft of half of it', () => {
  const producer = new Producer(1, 1, 'sharing', 10);
  producer.add(1, 10);
  producer.advance(4);
  producer.add(2, 10);
  // The first has 6 ms of work left at half the rate.
  expect(producer.nextFinishMs()).toBeCloseTo(16, 9);
  producer.advance(8);
  producer.stolen = 0.5;
  // 4 ms left at a quarter of the rate.
  expect(producer.nextFinishMs()).toBeCloseTo(24, 9);
  producer.advance(24);
  expect(producer.takeFinished()).toBe(1);
  expect(producer.takeFinished()).toBe(-1);
  // The second has had 2 + 4 = 6 ms; 4 left at half the rate.
  expect(producer.nextFinishMs()).toBeCloseTo(32, 9);
  expect(producer.busyCoreMs).toBeCloseTo(24, 9);
});

test('FIFO by hand: the third waits for the first to leave', () => {
  const producer = new Producer(2, 1, 'fifo', 10);
  producer.add(1, 5);
  producer.add(2, 9);
  producer.add(3, 1);
  producer.advance(5);
  expect(producer.takeFinished()).toBe(1);
  expect(producer.nextFinishMs()).toBeCloseTo(6, 9);
  producer.advance(6);
  expect(producer.takeFinished()).toBe(3);
  expect(producer.inFlight).toBe(1);
});
