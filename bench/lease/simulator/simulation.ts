// One run: a world (scenario, seed) and a policy, from time zero to the end. One loop takes events in order of time; each
// kind has one method. Nothing here reads a real clock or chance of its own, so a run is a function of its arguments.
//
//   arrive ─> lease (policy.choose, or the lease held) ─> producer ─> depart ─> consumer: report, policy.ended
//   status interval ─> (lost | late | in time) ─> policy.status          probe ─> a round trip ─> policy.probed
import type { ProducerStatus } from '../../../src/lease/status.js';
import type { Random } from '../../../src/telemetry/random.js';
import type { Policy, PolicyKind, Truth, View } from '../policy.js';
import type { Fault, Scenario } from '../scenario.js';
import { ConsumerSide } from './consumers.js';
import { exponential, type Streams, sampler, streamsOf, uniformBetween } from './distributions.js';
import { EventQueue, widenFloats, widenInts } from './event-queue.js';
import { Measure, type Result } from './measure.js';
import { Producer } from './producer.js';

const enum Kind {
  Arrival,
  Departure,
  Status,
  LateStatus,
  Antagonist,
  FaultStart,
  FaultEnd,
  ProbeAnswer,
  Timeout,
  Failed,
  Sample,
  Burst,
  Begin,
  End,
  Restart,
}

const SAMPLE_MS = 50;
const FAST_FAILURE_MS = 0.5;
const SLOWDOWN = 20;
/** Mean service times after the end; what is then still unfinished counts with its age. */
const SETTLE_SERVICES = 10;

/** A deciding place, its producers and its policy. */
interface Agent {
  /** From the policy's number of a producer to the fleet's. */
  readonly producers: Int32Array;
  readonly view: View;
  policy: Policy;
}

export class Simulation {
  readonly measure: Measure;
  readonly producers: Producer[];
  readonly #scenario: Scenario;
  readonly #kind: PolicyKind;
  readonly #streams: Streams;
  readonly #queue = new EventQueue();
  readonly #consumers: ConsumerSide;
  readonly #agents: Agent[];
  readonly #agentOfConsumer: Int32Array;
  readonly #agentsOfProducer: ReadonlyArray<ReadonlyArray<readonly [agent: number, local: number]>>;
  readonly #sampleWork: (random: Streams['sizes']) => number;
  readonly #ratePerMs: number;
  #burst = false;
  #workMs = 0;

  readonly #departureMs: Float64Array;
  readonly #departureVersion: Int32Array;
  readonly #black: Uint8Array;

  // Operations under way, one row each; freed rows are stacked.
  #startMs = new Float64Array(1024);
  #opProducer = new Int32Array(1024);
  #opConsumer = new Int32Array(1024);
  #opToken = new Int32Array(1024);
  #opLevel = new Int32Array(1024);
  #opGeneration = new Int32Array(1024);
  #opAbandoned = new Uint8Array(1024);
  readonly #freeOps: number[] = [];
  #opsUsed = 0;

  readonly #lateStatuses: Array<{ readonly producer: number; readonly status: ProducerStatus }> = [];

  constructor(scenario: Scenario, kind: PolicyKind, seed: number) {
    this.#scenario = scenario;
    this.#kind = kind;
    this.#streams = streamsOf(seed);
    this.producers = makeFleet(scenario, this.#streams);
    const count = this.producers.length;
    this.#departureMs = new Float64Array(count).fill(Number.POSITIVE_INFINITY);
    this.#departureVersion = new Int32Array(count);
    this.#black = new Uint8Array(count);
    this.#consumers = new ConsumerSide(scenario.consumers, count, this.#streams);
    this.#sampleWork = sampler(scenario.serviceTime);
    this.#ratePerMs = (scenario.load * averagePower(scenario, this.producers)) / scenario.serviceTime.meanMs;
    const owners = ownersOf(scenario, count, this.#streams);
    this.#agents = owners.map((owned) => this.#makeAgent(owned));
    const places = this.producers.map(() => [] as Array<readonly [number, number]>);
    for (const [agent, owned] of owners.entries()) {
      for (const [local, producer] of owned.entries()) places[producer]!.push([agent, local]);
    }
    this.#agentsOfProducer = places;
    this.#agentOfConsumer = this.#assignConsumers();
    const endMs = scenario.warmupMs + scenario.durationMs;
    this.measure = new Measure(scenario.warmupMs, endMs, 10 * scenario.serviceTime.meanMs, this.producers);
  }

  run(): Result {
    const { measure } = this;
    this.#start();
    const queue = this.#queue;
    // Work goes on after the end until what began before it has ended: to leave out the unfinished would favour the slow.
    const settledMs = measure.endMs + SETTLE_SERVICES * this.#scenario.serviceTime.meanMs;
    while (queue.pop()) {
      if (queue.timeMs >= settledMs) break;
      this.#handle(queue.kind, queue.a, queue.b);
    }
    this.#countUnfinished(settledMs);
    return measure.result(this.#scenario.faults[0] ?? this.#restartAsFault(), queue.pushed);
  }

  #countUnfinished(nowMs: number): void {
    const { roundTripMs, deadlineMs } = this.#scenario;
    for (const [i, producer] of this.producers.entries()) {
      for (const op of producer.operations()) {
        const ageMs = nowMs - this.#startMs[op]! + roundTripMs;
        if (this.#opAbandoned[op] === 0)
          this.measure.operation(this.#startMs[op]!, ageMs, ageMs > deadlineMs, i);
      }
    }
  }

  #restartAsFault(): { atMs: number; untilMs: number } | undefined {
    const { restartAtMs } = this.#scenario;
    return restartAtMs === undefined ? undefined : { atMs: restartAtMs, untilMs: restartAtMs + 5_000 };
  }

  #start(): void {
    const scenario = this.#scenario;
    const queue = this.#queue;
    queue.push(exponential(this.#streams.arrivals, 1 / this.#ratePerMs), Kind.Arrival);
    for (const i of this.producers.keys()) {
      queue.push(this.#streams.statuses.uniform() * scenario.statuses.intervalMs, Kind.Status, i);
      if (scenario.antagonists !== undefined) {
        // Begin in the steady state: present with its probability.
        const { awayMeanMs, presentMeanMs } = scenario.antagonists;
        const present = this.#streams.antagonists.uniform() < presentMeanMs / (awayMeanMs + presentMeanMs);
        queue.push(0, Kind.Antagonist, i, present ? 1 : 0);
      }
    }
    for (const [i, fault] of scenario.faults.entries()) {
      queue.push(fault.atMs, Kind.FaultStart, i);
      queue.push(fault.untilMs, Kind.FaultEnd, i);
    }
    if (scenario.arrivals.kind === 'bursts') queue.push(0, Kind.Burst);
    if (scenario.restartAtMs !== undefined) queue.push(scenario.restartAtMs, Kind.Restart);
    queue.push(scenario.warmupMs, Kind.Begin);
    queue.push(this.measure.endMs, Kind.End);
    queue.push(scenario.warmupMs, Kind.Sample);
  }

  #handle(kind: number, a: number, b: number): void {
    const now = this.#queue.timeMs;
    switch (kind) {
      case Kind.Arrival:
        this.#arrive();
        break;
      case Kind.Departure:
        this.#depart(a, b);
        break;
      case Kind.Status:
        this.#status(a);
        break;
      case Kind.LateStatus:
        this.#deliverStatus(a);
        break;
      case Kind.ProbeAnswer:
        this.#answerProbe(a, b);
        break;
      case Kind.Failed:
        this.#end(a, now, true, b === 1);
        break;
      case Kind.Timeout:
        this.#timeOut(a, b);
        break;
      case Kind.Antagonist:
        this.#antagonist(a, b === 1);
        break;
      case Kind.FaultStart:
        this.#fault(this.#scenario.faults[a]!, true);
        break;
      case Kind.FaultEnd:
        this.#fault(this.#scenario.faults[a]!, false);
        break;
      case Kind.Burst:
        this.#switchBurst();
        break;
      case Kind.Begin:
        this.measure.begin(now);
        break;
      case Kind.End:
        this.measure.end(now);
        break;
      case Kind.Sample:
        this.#sample(now);
        break;
      case Kind.Restart:
        this.#restart();
        break;
    }
  }

  #sample(now: number): void {
    if (now >= this.measure.endMs) return;
    this.measure.sampleQueues();
    this.#queue.push(now + SAMPLE_MS, Kind.Sample);
  }

  // ---- operations

  #arrive(): void {
    const now = this.#queue.timeMs;
    const streams = this.#streams;
    this.#queue.push(now + exponential(streams.arrivals, 1 / this.#rateNow()), Kind.Arrival);
    const consumer = this.#consumers.next();
    this.#workMs = this.#sampleWork(streams.sizes);
    const luck = streams.sizes.uniform();
    const producer = this.#lease(consumer, now);
    if (producer < 0) {
      this.measure.operation(now, 0, true, -1);
      return;
    }
    const op = this.#newOperation(now, producer, consumer);
    const target = this.producers[producer]!;
    if (target.crashed || this.#black[producer] === 1) {
      this.#queue.push(now + FAST_FAILURE_MS, Kind.Failed, op);
    } else if (luck < target.failing) {
      target.finished += 1;
      target.failed += 1;
      this.#queue.push(now + FAST_FAILURE_MS, Kind.Failed, op);
    } else if (target.inFlight >= target.inFlightMax) {
      target.rejected += 1;
      this.#queue.push(now + FAST_FAILURE_MS, Kind.Failed, op, 1);
    } else {
      target.advance(now);
      this.#opLevel[op] = target.inFlight;
      target.add(op, this.#workMs);
      if (target.hung) {
        this.#queue.push(now + this.#scenario.deadlineMs, Kind.Timeout, op, this.#opGeneration[op]);
      }
      this.#schedule(producer);
    }
  }

  /** The producer of the consumer's lease, a new one when it has none; -1 when nothing can be leased. */
  #lease(consumer: number, now: number): number {
    const { leases } = this.#scenario.consumers;
    if (leases.kind === 'operation') return this.#ask(consumer, now);
    const holding = this.#consumers.heldProducer(consumer, now);
    if (holding >= 0) {
      this.#token = this.#consumers.heldToken(consumer);
      return holding;
    }
    const ended = this.#consumers.endHeld(consumer, now);
    if (ended !== undefined)
      this.#tellEnd(consumer, ended.producer, ended.latencyMs, ended.failed, ended.token);
    const producer = this.#ask(consumer, now);
    if (producer < 0) return -1;
    const holdMs = leases.holdMs * uniformBetween(this.#streams.reports, 0.8, 1.2);
    this.#consumers.hold(consumer, producer, this.#token, now, now + holdMs);
    return producer;
  }

  #token = 0;

  #ask(consumer: number, now: number): number {
    const agent = this.#agents[this.#agentOfConsumer[consumer]!]!;
    const report = this.#consumers.takeReport(consumer, now);
    const local = agent.policy.choose(consumer, report);
    if (local < 0) return -1;
    this.#token = agent.policy.token?.() ?? 0;
    const producer = agent.producers[local]!;
    const moved = this.#consumers.granted(consumer, producer);
    if (this.#counting(now)) {
      this.measure.leases += 1;
      if (moved !== undefined) this.measure.renewals += 1;
      if (moved === true) this.measure.moves += 1;
    }
    return producer;
  }

  #newOperation(now: number, producer: number, consumer: number): number {
    const op = this.#freeOps.pop() ?? this.#opsUsed++;
    if (op === this.#startMs.length) this.#growOperations();
    this.#startMs[op] = now;
    this.#opProducer[op] = producer;
    this.#opConsumer[op] = consumer;
    this.#opToken[op] = this.#token;
    this.#opAbandoned[op] = 0;
    return op;
  }

  #growOperations(): void {
    const capacity = this.#startMs.length * 2;
    this.#startMs = widenFloats(this.#startMs, capacity);
    this.#opProducer = widenInts(this.#opProducer, capacity);
    this.#opConsumer = widenInts(this.#opConsumer, capacity);
    this.#opToken = widenInts(this.#opToken, capacity);
    this.#opLevel = widenInts(this.#opLevel, capacity);
    this.#opGeneration = widenInts(this.#opGeneration, capacity);
    const abandoned = new Uint8Array(capacity);
    abandoned.set(this.#opAbandoned);
    this.#opAbandoned = abandoned;
  }

  /** Keeps one departure event ahead of the producer; a later one than needed is never kept, an earlier one looks again. */
  #schedule(producer: number): void {
    const next = this.producers[producer]!.nextFinishMs();
    if (next >= this.#departureMs[producer]!) return;
    this.#departureMs[producer] = next;
    const version = this.#departureVersion[producer]! + 1;
    this.#departureVersion[producer] = version;
    this.#queue.push(Math.max(next, this.#queue.timeMs), Kind.Departure, producer, version);
  }

  #depart(producer: number, version: number): void {
    if (version !== this.#departureVersion[producer]) return;
    const now = this.#queue.timeMs;
    const target = this.producers[producer]!;
    target.advance(now);
    this.#departureMs[producer] = Number.POSITIVE_INFINITY;
    for (let op = target.takeFinished(); op >= 0; op = target.takeFinished()) {
      target.finished += 1;
      const latencyMs = now - this.#startMs[op]!;
      target.observeLatency(now, this.#opLevel[op]!, latencyMs);
      if (this.#opAbandoned[op] === 1) this.#freeOperation(op);
      else this.#end(op, now, latencyMs + this.#scenario.roundTripMs > this.#scenario.deadlineMs, false);
    }
    this.#schedule(producer);
  }

  #timeOut(op: number, generation: number): void {
    if (this.#opGeneration[op] !== generation || this.#opAbandoned[op] === 1) return;
    this.#opAbandoned[op] = 1;
    this.#account(op, this.#queue.timeMs, true, false);
  }

  #end(op: number, now: number, failed: boolean, rejected: boolean): void {
    this.#account(op, now, failed, rejected);
    this.#freeOperation(op);
  }

  #freeOperation(op: number): void {
    this.#opGeneration[op] = this.#opGeneration[op]! + 1;
    this.#freeOps.push(op);
  }

  #account(op: number, now: number, failed: boolean, rejected: boolean): void {
    const startMs = this.#startMs[op]!;
    const latencyMs = now - startMs + this.#scenario.roundTripMs;
    const producer = this.#opProducer[op]!;
    const consumer = this.#opConsumer[op]!;
    const token = this.#opToken[op]!;
    this.measure.operation(startMs, latencyMs, failed, producer);
    if (this.#scenario.consumers.leases.kind === 'held') {
      this.#consumers.heldOperation(consumer, token, latencyMs, failed, rejected);
      return;
    }
    this.#consumers.reportOperation(consumer, now, producer, token, latencyMs, failed, rejected);
    this.#tellEnd(consumer, producer, latencyMs, failed, token);
  }

  #tellEnd(consumer: number, producer: number, latencyMs: number, failed: boolean, token: number): void {
    const { policy } = this.#agents[this.#agentOfConsumer[consumer]!]!;
    if (policy.wantsReports === true) this.#reportAtOnce(consumer, policy);
    if (policy.wantsEnds !== true) return;
    policy.ended?.(this.#localOf(consumer, producer), latencyMs, failed, token);
    if (this.#counting(this.#queue.timeMs)) this.measure.messages += 1;
  }

  #reportAtOnce(consumer: number, policy: Policy): void {
    const now = this.#queue.timeMs;
    if (this.#counting(now)) this.measure.messages += 1;
    const report = this.#consumers.takeReport(consumer, now);
    if (report !== undefined) policy.reported?.(consumer, report);
  }

  #counting(nowMs: number): boolean {
    return nowMs >= this.measure.warmupMs && nowMs < this.measure.endMs;
  }

  // ---- what producers say

  #status(producer: number): void {
    const now = this.#queue.timeMs;
    const { intervalMs, delayMs, loss, late, lateMs } = this.#scenario.statuses;
    this.#queue.push(now + intervalMs, Kind.Status, producer);
    const chance = this.#streams.statuses.uniform();
    const target = this.producers[producer]!;
    if (target.crashed) return;
    target.advance(now);
    if (this.#counting(now)) this.measure.messages += this.#agentsOfProducer[producer]!.length;
    if (chance < loss) return;
    const windowMs = now - target.statusSinceMs;
    const { p50 } = target.takeLatencyQuantilesMs();
    const status: ProducerStatus = {
      utilisation:
        windowMs > 0 ? (target.busyCoreMs - target.statusBusyCoreMs) / (target.cores * windowMs) : 0,
      inFlight: target.inFlight,
      operations: target.finished,
      errors: target.failed,
      latencyMs: p50,
      windowMs,
    };
    target.finished = 0;
    target.failed = 0;
    target.rejected = 0;
    target.statusSinceMs = now;
    target.statusBusyCoreMs = target.busyCoreMs;
    const afterMs = chance < loss + late ? lateMs : delayMs;
    const slot = this.#freeStatuses.pop() ?? this.#lateStatuses.length;
    this.#lateStatuses[slot] = { producer, status };
    this.#queue.push(now + afterMs, Kind.LateStatus, slot);
  }

  readonly #freeStatuses: number[] = [];

  #deliverStatus(slot: number): void {
    const { producer, status } = this.#lateStatuses[slot]!;
    this.#freeStatuses.push(slot);
    for (const [agent, local] of this.#agentsOfProducer[producer]!) {
      this.#agents[agent]!.policy.status?.(local, status);
    }
  }

  #answerProbe(agent: number, local: number): void {
    const { policy, producers } = this.#agents[agent]!;
    const target = this.producers[producers[local]!]!;
    if (target.crashed) return;
    policy.probed?.(local, target.inFlight, target.latencyEstimateMs(this.#queue.timeMs));
  }

  // ---- what befalls them

  #antagonist(producer: number, present: boolean): void {
    const now = this.#queue.timeMs;
    const { awayMeanMs, presentMeanMs, stealLow, stealHigh } = this.#scenario.antagonists!;
    const random = this.#streams.antagonists;
    const share = uniformBetween(random, stealLow, stealHigh);
    this.#queue.push(
      now + exponential(random, present ? presentMeanMs : awayMeanMs),
      Kind.Antagonist,
      producer,
      present ? 0 : 1,
    );
    const target = this.producers[producer]!;
    target.advance(now);
    target.stolen = present ? share : 0;
    this.#schedule(producer);
  }

  #fault(fault: Fault, begins: boolean): void {
    for (let i = 0; i < fault.producers; i += 1) {
      this.producers[i]!.advance(this.#queue.timeMs);
      this.#strike(i, fault.kind, begins);
      this.#schedule(i);
    }
  }

  #strike(producer: number, kind: Fault['kind'], begins: boolean): void {
    const now = this.#queue.timeMs;
    const target = this.producers[producer]!;
    switch (kind) {
      case 'slow':
        target.slowdown = begins ? SLOWDOWN : 1;
        break;
      case 'failing':
        target.failing = begins ? 0.5 : 0;
        break;
      case 'black hole':
        this.#black[producer] = begins ? 1 : 0;
        break;
      case 'hang':
        target.hung = begins;
        if (!begins) break;
        for (const op of target.operations()) {
          const dueMs = Math.max(now, this.#startMs[op]! + this.#scenario.deadlineMs);
          this.#queue.push(dueMs, Kind.Timeout, op, this.#opGeneration[op]);
        }
        break;
      case 'crash':
        target.crashed = begins;
        if (!begins) break;
        for (const op of target.operations()) this.#end(op, now, true, false);
        target.clear();
    }
  }

  /** The agents come back empty, and know none of the leases: every consumer asks with its next operation. */
  #restart(): void {
    for (const agent of this.#agents) agent.policy = this.#kind.make(agent.view);
    this.#consumers.loseLeases();
  }

  #switchBurst(): void {
    const { arrivals } = this.#scenario;
    if (arrivals.kind !== 'bursts') return;
    const meanMs = this.#burst ? arrivals.calmMeanMs : arrivals.burstMeanMs;
    this.#burst = !this.#burst;
    this.#queue.push(this.#queue.timeMs + exponential(this.#streams.antagonists, meanMs), Kind.Burst);
  }

  #rateNow(): number {
    const { arrivals } = this.#scenario;
    if (arrivals.kind === 'poisson') return this.#ratePerMs;
    const { calmMeanMs, burstMeanMs, burstRatio } = arrivals;
    const calm = (calmMeanMs + burstMeanMs) / (calmMeanMs + burstRatio * burstMeanMs);
    return this.#ratePerMs * calm * (this.#burst ? burstRatio : 1);
  }

  // ---- agents

  #makeAgent(owned: readonly number[]): Agent {
    const producers = Int32Array.from(owned);
    const { promise } = this.#scenario.fleet;
    const capacities = Float64Array.from(owned, (i) => {
      const { cores, speed } = this.producers[i]!;
      return promise === 'exact' ? cores * speed : cores;
    });
    const truth: Truth = { expectedMs: (local) => this.#expectedMs(producers[local]!) };
    const number = this.#nextAgent++;
    const view: View = {
      capacities,
      random: this.#streams.policy,
      nowMs: () => this.#queue.timeMs,
      probe: (local) => {
        if (this.#counting(this.#queue.timeMs)) this.measure.messages += 2;
        this.#queue.push(this.#queue.timeMs + this.#scenario.roundTripMs, Kind.ProbeAnswer, number, local);
      },
      truth,
    };
    return { producers, view, policy: this.#kind.make(view) };
  }

  #nextAgent = 0;

  /** When the operation that arrives now would leave `producer` if nobody came after it; under sharing, exactly. */
  #expectedMs(producer: number): number {
    const target = this.producers[producer]!;
    if (
      target.crashed ||
      target.hung ||
      this.#black[producer] === 1 ||
      target.inFlight >= target.inFlightMax
    ) {
      return Number.POSITIVE_INFINITY;
    }
    target.advance(this.#queue.timeMs);
    const { power } = target;
    const workMs = this.#workMs;
    const alone = (workMs * target.cores) / power;
    const expected = Math.max(alone, (workMs + target.workAheadMs(workMs)) / power);
    return target.failing > 0 ? expected + this.#scenario.deadlineMs : expected;
  }

  /** A consumer belongs to an agent in proportion to the capacity the agent decides over. */
  #assignConsumers(): Int32Array {
    const totals = this.#agents.map(({ view }) =>
      view.capacities.reduce((sum, capacity) => sum + capacity, 0),
    );
    const total = totals.reduce((sum, value) => sum + value, 0);
    return Int32Array.from({ length: this.#scenario.consumers.count }, () => {
      let at = this.#streams.agents.uniform() * total;
      let agent = 0;
      while (agent < totals.length - 1 && at >= totals[agent]!) at -= totals[agent++]!;
      return agent;
    });
  }

  #localOf(consumer: number, producer: number): number {
    const agent = this.#agentOfConsumer[consumer]!;
    // With shared views every agent numbers producers as the fleet does.
    if (this.#scenario.views === 'shared') return producer;
    return this.#agentsOfProducer[producer]!.find(([number]) => number === agent)![1];
  }
}

function makeFleet({ fleet }: Scenario, streams: Streams): Producer[] {
  const machines = Array.from(
    { length: fleet.producers },
    (_, i) => fleet.machines[i % fleet.machines.length]!,
  );
  shuffle(machines, streams.fleet);
  return machines.map(
    ({ cores, speed }) => new Producer(cores, speed, fleet.discipline, cores * fleet.inFlightPerCoreMax),
  );
}

function shuffle<T>(items: T[], random: Random): void {
  for (let i = items.length - 1; i > 0; i -= 1) {
    const j = random.below(i + 1);
    [items[i], items[j]] = [items[j]!, items[i]!];
  }
}

/** Core-milliseconds a millisecond that the fleet can do on average. */
function averagePower({ antagonists }: Scenario, producers: readonly Producer[]): number {
  const whole = producers.reduce((sum, { cores, speed }) => sum + cores * speed, 0);
  if (antagonists === undefined) return whole;
  const { awayMeanMs, presentMeanMs, stealLow, stealHigh } = antagonists;
  return whole * (1 - ((stealLow + stealHigh) / 2) * (presentMeanMs / (awayMeanMs + presentMeanMs)));
}

/** The producers of each agent. */
function ownersOf({ agents, views }: Scenario, producers: number, streams: Streams): number[][] {
  const all = [...Array(producers).keys()];
  if (views === 'shared') return Array.from({ length: agents }, () => all);
  // As rendezvous hashing with bounded load would: at random, and nearly the same number each.
  shuffle(all, streams.agents);
  return Array.from({ length: agents }, (_, agent) => all.filter((_producer, at) => at % agents === agent));
}
