// The claim: one core makes a million grants a second in TypeScript, with 1 000 producers, each grant with its lease record,
// deadline, explanation and fencing token, each lease given back later, producers and consumers reporting meanwhile.
//
//   npm run bench:lease [-- --producers 1000 --grants 2000000 --rounds 5]
//
// The selector's time goes on by a microsecond a grant. Rates are given by the clock and by the CPU time that was used: on a
// machine that does other things too only the latter says what a core can do.
import { parseArgs } from 'node:util';
import { Selector } from '../src/lease/selector.js';
import { seededRandom } from '../src/telemetry/random.js';
import { median } from './report.js';

const { values } = parseArgs({
  options: {
    producers: { type: 'string', default: '1000' },
    grants: { type: 'string', default: '2000000' },
    rounds: { type: 'string', default: '5' },
  },
});
const producers = Number(values.producers);
const grantsPerRound = Number(values.grants);
const rounds = Number(values.rounds);

/** Leases that are live at a time. */
const LIVE = 100_000;
const BATCH = 256;

interface Round {
  readonly perSecond: number;
  readonly perCpuSecond: number;
  readonly bytesPerGrant: number;
}

/** Grants in batches; every batch gives as many older leases back and hears one producer and one consumer. */
function selectorRound(seed: number, exclusive: boolean): Round {
  const selector = new Selector(seededRandom(seed), { slowStartMs: 0 });
  const capacity = exclusive ? 1 : Math.ceil((LIVE * 2) / producers);
  for (let i = 0; i < producers; i += 1) selector.addProducer(`producer-${i}`, { capacity }, 0);
  const live = new Float64Array(exclusive ? Math.floor(producers / 2) : LIVE);
  const status = {
    utilisation: 0.5,
    inFlight: 10,
    operations: 1000,
    errors: 0,
    latencyMs: 2,
    windowMs: 1000,
  };
  const report = {
    operations: 100,
    errors: 0,
    rejected: 0,
    latencyP50Ms: 2,
    latencyP99Ms: 9,
    windowMs: 1000,
  };
  for (let i = 0; i < live.length; i += 1) live[i] = selector.grant(0, i);
  let grants = 0;
  let at = 0;
  let nowMs = 0;
  const heap = process.memoryUsage().heapUsed;
  const startedMs = performance.now();
  const cpu = process.cpuUsage();
  while (grants < grantsPerRound) {
    nowMs += BATCH / 1000;
    for (let i = 0; i < BATCH; i += 1) {
      selector.onRelease(live[at]!);
      const lease = selector.grant(nowMs, grants);
      if (lease < 0) throw new Error(`refused: ${lease}`);
      live[at] = lease;
      at = at + 1 === live.length ? 0 : at + 1;
      grants += 1;
    }
    const slot = (grants / BATCH) % producers;
    selector.onProducerStatus(slot, status, nowMs);
    selector.onConsumerReport(live[at]!, grants, report, nowMs);
    selector.expire(nowMs);
  }
  const { user, system } = process.cpuUsage(cpu);
  const wallSeconds = (performance.now() - startedMs) / 1000;
  return {
    perSecond: grants / wallSeconds,
    perCpuSecond: (grants * 1e6) / (user + system),
    bytesPerGrant: (process.memoryUsage().heapUsed - heap) / grants,
  };
}

for (const exclusive of [false, true]) {
  const results = Array.from({ length: rounds }, (_, i) => selectorRound(i + 1, exclusive));
  const of = (figure: keyof Round) => median(results.map((each) => each[figure]));
  const rate = (figure: keyof Round) => Math.round(of(figure)).toLocaleString('en');
  const kind = exclusive ? 'exclusive, half of them leased' : `shared, ${LIVE} leases live`;
  console.log(
    `selector, ${producers} producers, ${kind}: ${rate('perCpuSecond')} grants per CPU second, ` +
      `${rate('perSecond')} by the clock, ${of('bytesPerGrant').toFixed(1)} bytes of heap a grant`,
  );
}
