// The claim: one core makes a million grants a second in TypeScript, with 1 000 producers, each grant with its lease record,
// deadline, explanation and fencing token, each lease given back later, producers and consumers reporting meanwhile.
//
//   npm run bench:lease [-- --producers 1000 --grants 2000000 --rounds 5]
//
// The selector's time goes on by a microsecond a grant. Rates are given by the clock and by the CPU time that was used: on a
// machine that does other things too only the latter says what a core can do.
import { type ChildProcess, fork } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { LeaseRequest } from '../src/lease/contract.js';
import { RemoteAgent } from '../src/lease/grpc/client.js';
import { LeaseHost } from '../src/lease/host.js';
import { Selector } from '../src/lease/selector.js';
import { SELECTOR_DEFAULTS } from '../src/lease/selector-options.js';
import { seededRandom } from '../src/telemetry/random.js';
import { median } from './report.js';

const { values } = parseArgs({
  options: {
    producers: { type: 'string', default: '1000' },
    grants: { type: 'string', default: '2000000' },
    rounds: { type: 'string', default: '5' },
    calls: { type: 'string', default: '20000' },
    agent: { type: 'string' },
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
  // As LeaseService makes them.
  const choices = exclusive ? SELECTOR_DEFAULTS.heldChoices : SELECTOR_DEFAULTS.choices;
  const selector = new Selector(seededRandom(seed), { slowStartMs: 0, choices });
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

function selectorAlone(): void {
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
}

interface AgentReport {
  readonly cpuMicroseconds: number;
}

/** The agent's process: serves until its parent goes, says how much CPU it has used when asked. */
async function serve(directory: string): Promise<void> {
  const host = await LeaseHost.start({
    name: 'bench',
    store: `file:${join(directory, 'store')}`,
    listen: `unix:${join(directory, 'agent.sock')}`,
    selector: { slowStartMs: 0, ttlMs: 10_000, silentAfterMs: 1e9 },
    forgetAfterMs: 1e9,
  });
  for (const mode of ['shared', 'exclusive'] as const) {
    for (let i = 0; i < producers; i += 1) {
      // Straight into the coordination's records: what is measured is leasing.
      await host.agent.register({ service: mode, producer: `p${i}`, mode, address: '', capacity: 1000 });
    }
  }
  process.on('message', () => {
    const { user, system } = process.cpuUsage();
    process.send?.({ cpuMicroseconds: user + system } satisfies AgentReport);
  });
  process.on('disconnect', () => process.exit(0));
  process.send?.({ cpuMicroseconds: 0 } satisfies AgentReport);
}

function heard(agent: ChildProcess): Promise<AgentReport> {
  return new Promise((resolve) => agent.once('message', (message) => resolve(message as AgentReport)));
}

/** Each request takes a lease and gives the one before back, with a report. */
async function overGrpc(): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'penstock-bench-lease-'));
  const argv = ['--agent', directory, '--producers', String(Math.min(producers, 200))];
  const agent = fork(fileURLToPath(import.meta.url), argv);
  try {
    await heard(agent);
    const remote = new RemoteAgent(`unix:${join(directory, 'agent.sock')}`, { timeoutMs: 60_000 });
    for (const service of ['shared', 'exclusive']) {
      for (const [batch, parallel] of [
        [1, 1],
        [1, 64],
        [256, 4],
      ] as const) {
        await measure(
          agent,
          remote,
          service,
          service === 'exclusive' ? Math.min(batch, 16) : batch,
          parallel,
        );
      }
    }
    remote[Symbol.dispose]();
  } finally {
    agent.kill();
    rmSync(directory, { recursive: true, force: true });
  }
}

const REPORT = { operations: 100, errors: 0, rejected: 0, latencyP50Ms: 2, latencyP99Ms: 9, windowMs: 1000 };

async function measure(
  agent: ChildProcess,
  remote: RemoteAgent,
  service: string,
  batch: number,
  parallel: number,
): Promise<void> {
  const total = Number(values.calls);
  let grants = 0;
  let refused = 0;
  const worker = async (id: number) => {
    const held = new Array<string | undefined>(batch).fill(undefined);
    const request = (i: number): LeaseRequest => {
      const leaseId = held[i];
      const asked = { service, consumer: `c${id}-${i}` };
      return leaseId === undefined ? asked : { ...asked, previous: { ...REPORT, leaseId } };
    };
    while (grants < total) {
      if (batch === 1) held[0] = (await remote.request(request(0))).leaseId;
      else {
        const outcomes = await remote.requestMany(held.map((_, i) => request(i)));
        for (const [i, outcome] of outcomes.entries()) {
          if ('error' in outcome) refused += 1;
          else held[i] = outcome.grant.leaseId;
        }
      }
      grants += batch;
    }
  };
  agent.send('cpu');
  const before = await heard(agent);
  const startedMs = performance.now();
  await Promise.all(Array.from({ length: parallel }, (_, id) => worker(id)));
  const wallSeconds = (performance.now() - startedMs) / 1000;
  agent.send('cpu');
  const cpuSeconds = ((await heard(agent)).cpuMicroseconds - before.cpuMicroseconds) / 1e6;
  const rate = (seconds: number) => Math.round(grants / seconds).toLocaleString('en');
  console.log(
    `agent over gRPC, ${service}, ${batch} a call, ${parallel} calls at a time: ${rate(cpuSeconds)} grants per CPU second ` +
      `of the agent, ${rate(wallSeconds)} by the clock${refused > 0 ? `, ${refused} refused` : ''}`,
  );
}

if (values.agent !== undefined) await serve(values.agent);
else {
  selectorAlone();
  await overGrpc();
}
