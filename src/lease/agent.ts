// The lease agent: owns producers, grants their leases, and agrees with other agents about who owns which.
//
//   producers ── register, report ──> LeaseAgent ── heartbeat, hand over ──> Coordination (a key-value engine, here or at a peer)
//   consumers ── request, renew ────>     │
//                                         └─ LeaseService per service: selector, tokens, holders; journal of exclusive leases
import { randomBytes } from 'node:crypto';
import type { KvEngine } from '../kv/engine.js';
import { type Clock, systemClock } from '../telemetry/clock.js';
import { type Logger, silentLogger } from '../telemetry/logger.js';
import type { Metrics } from '../telemetry/metrics.js';
import { type Random, seededRandom, systemRandom } from '../telemetry/random.js';
import {
  type AgentApi,
  type AgentInfo,
  type Grant,
  type GrantOutcome,
  type LeaseEvent,
  type LeaseExplanation,
  type LeaseReference,
  type LeaseRequest,
  type ProducerInfo,
  type ProducerName,
  type Registered,
  type Registration,
  type Renewal,
  SERVICE_MODES,
  type ServiceMode,
  type WatchFilter,
} from './contract.js';
import type { Coordination, Joined, Member, ProducerRecord, View } from './coordination.js';
import { LeaseError } from './errors.js';
import { EventHub } from './event-hub.js';
import { TOKENS_PER_BLOCK, TokenBlock } from './fencing.js';
import { LeaseSeal } from './lease-id.js';
import { type JournalledLease, LeaseJournal } from './lease-journal.js';
import { Membership } from './membership.js';
import { noCounts } from './selector.js';
import { type SelectorOptions, selectorOptions } from './selector-options.js';
import { HELD_UP_SHARE, LeaseService } from './service.js';
import type { ProducerStatus } from './status.js';

export interface LeaseAgentOptions {
  /** Its name among the agents: letters, digits, - and _. The same after a restart on the same state; default: random. */
  readonly name?: string;
  /** Where others reach it; told to producers, consumers and agents. Default: nowhere, it serves its own process. */
  readonly address?: string;
  /** Where it remembers its exclusive leases; closed by whoever opened it. */
  readonly state: KvEngine;
  readonly coordination: Coordination;
  /** For every service. */
  readonly selector?: Partial<SelectorOptions>;
  /** For single services, over `selector`. */
  readonly services?: Readonly<Record<string, Partial<SelectorOptions>>>;
  /** A producer that is silent for so long is forgotten, milliseconds. */
  readonly forgetAfterMs?: number;
  readonly clock?: Clock;
  readonly random?: Random;
  readonly logger?: Logger;
  readonly metrics?: Metrics;
}

/** What earlier lives of an agent have granted, as far as the agent knows. */
interface EarlierLives {
  readonly leases: readonly JournalledLease[];
  /** Until then leases may live that nothing tells of; 0: there are none. */
  readonly quietMs: number;
}

const FORGET_AFTER_MS = 60_000;
const NOTHING: EarlierLives = { leases: [], quietMs: 0 };
const SWEEP_MS_MAX = 250;
const SWEEP_MS_MIN = 5;
const NAME = /^[A-Za-z0-9_-]{1,64}$/;
/** Two of them are part of a key in the engine, which has 512 at most. */
const TEXT_BYTES_MAX = 200;
export const REQUESTS_MAX = 10_000;

export class LeaseAgent implements AgentApi, AsyncDisposable {
  readonly name: string;
  readonly address: string;
  readonly #services = new Map<string, LeaseService>();
  readonly #events = new EventHub();
  readonly #journal: LeaseJournal;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #logger: Logger;
  readonly #leaseMsMax: number;
  readonly #sweepMs: number;
  readonly #undo: Array<() => void> = [];
  readonly #stopping = new AbortController();
  readonly counters = { requests: 0, refused: 0, fenced: 0, adopted: 0, handedOver: 0, forgotten: 0 };
  #membership!: Membership;
  #seal!: LeaseSeal;
  #memberTtlMs = 0;
  /** It counts for the producers of the first view, since others have come to it properly. */
  #earlier: EarlierLives = NOTHING;
  /** When the journal knows every lease that may live. Monotonic. */
  #trustMs = Number.POSITIVE_INFINITY;
  #sweeping: Promise<void> | undefined;
  #tidying: Promise<void> | undefined;
  #closing: Promise<void> | undefined;
  #broken: unknown;

  private constructor(private readonly options: LeaseAgentOptions) {
    this.name = options.name ?? `agent-${randomBytes(6).toString('hex')}`;
    if (!NAME.test(this.name))
      throw new LeaseError('BAD_REQUEST', `"${this.name}" cannot be an agent's name`);
    this.address = options.address ?? '';
    this.#clock = options.clock ?? systemClock;
    // Chance for choices and jitter need not be secret, and the system's costs a call each.
    this.#random = options.random ?? seededRandom(systemRandom.next32());
    this.#logger = (options.logger ?? silentLogger).child({ agent: this.name });
    this.#journal = new LeaseJournal(options.state);
    const all = [options.selector, ...Object.values(options.services ?? {})].map((each) =>
      selectorOptions({ ...options.selector, ...each }),
    );
    this.#leaseMsMax = Math.max(...all.map(({ ttlMs, ttlJitter }) => ttlMs * (1 + ttlJitter)));
    const silentMs = Math.min(...all.map(({ silentAfterMs }) => silentAfterMs));
    const unnoticedMs = Math.max(SWEEP_MS_MIN, (silentMs * HELD_UP_SHARE) / 2);
    this.#sweepMs = Math.min(SWEEP_MS_MAX, this.#leaseMsMax / 50, unnoticedMs);
  }

  static async start(options: LeaseAgentOptions): Promise<LeaseAgent> {
    const agent = new LeaseAgent(options);
    await agent.#start();
    return agent;
  }

  // Producers

  async register(registration: Registration): Promise<Registered> {
    this.#checkOpen();
    checkRegistration(registration);
    const exclusive = registration.mode === 'exclusive';
    const owner = await this.options.coordination.register(
      exclusive ? { ...registration, capacity: 1 } : registration,
    );
    if (owner.agent === this.name) {
      await this.#membership.beat();
      this.#ownedService(registration)?.report(registration.producer, undefined);
    }
    const { silentAfterMs } = this.#optionsOf(registration.service);
    return { owner, reportIntervalMs: Math.max(50, Math.min(1000, silentAfterMs / 4)) };
  }

  async report(name: ProducerName, status?: ProducerStatus): Promise<void> {
    this.#checkOpen();
    (await this.#serviceOwning(name)).report(name.producer, status);
  }

  async deregister(name: ProducerName): Promise<void> {
    this.#checkOpen();
    const service = await this.#serviceOwning(name);
    service.depart(name.producer);
    // The holder of an exclusive lease may not know for a while; until it has ended nobody else may come to hold the producer.
    if (service.exclusive) await service.revokeAll(name.producer);
    await this.#removeDeparted(service);
  }

  async drain(name: ProducerName, draining: boolean): Promise<void> {
    this.#checkOpen();
    const service = await this.#serviceOwning(name);
    service.drain(name.producer, draining);
    // In force already; whoever owns the producer next, or this agent after a restart, has to know too.
    const { epoch } = service.owned(name.producer)!;
    const owned = { service: name.service, producer: name.producer, epoch };
    if (await this.options.coordination.drain(this.#membership.member, owned, draining)) return;
    throw new LeaseError('NOT_OWNER', `producer "${name.producer}" is moving to another agent; ask again`, {
      retryAfterMs: 100,
    });
  }

  // Consumers

  async request(request: LeaseRequest): Promise<Grant> {
    this.#checkOpen();
    checkText('service', request.service);
    checkText('consumer', request.consumer);
    this.counters.requests += 1;
    const service = this.#services.get(request.service);
    try {
      if (service === undefined || service.empty) throw this.#nothingHere(request.service);
      return await service.request(request);
    } catch (error) {
      this.counters.refused += 1;
      if (error instanceof LeaseError && error.code === 'FENCED') this.counters.fenced += 1;
      throw error;
    }
  }

  requestMany(requests: readonly LeaseRequest[]): Promise<GrantOutcome[]> {
    if (requests.length > REQUESTS_MAX) {
      return Promise.reject(new LeaseError('BAD_REQUEST', `at most ${REQUESTS_MAX} requests at a time`));
    }
    return Promise.all(
      requests.map(async (request) => {
        try {
          return { grant: await this.request(request) };
        } catch (error) {
          return { error: error as Error };
        }
      }),
    );
  }

  async renew(lease: LeaseReference): Promise<Renewal> {
    this.#checkOpen();
    return (await this.#serviceOwning(lease)).renew(lease);
  }

  async release(lease: LeaseReference): Promise<void> {
    this.#checkOpen();
    (await this.#serviceOwning(lease)).release(lease);
  }

  async revoke(leaseId: string): Promise<void> {
    this.#checkOpen();
    for (const service of this.#services.values()) if (await service.revoke(leaseId)) return;
    throw new LeaseError('NO_SUCH_LEASE', `lease ${leaseId} is not held from this agent`);
  }

  // Looking in

  async explain(leaseId: string): Promise<LeaseExplanation> {
    for (const service of this.#services.values()) {
      const explanation = service.explain(leaseId);
      if (explanation !== undefined) return explanation;
    }
    throw new LeaseError('NO_SUCH_LEASE', `nothing is kept about lease ${leaseId} at this agent`);
  }

  async producers(service?: string): Promise<ProducerInfo[]> {
    return [...this.#services.values()]
      .filter(({ name }) => service === undefined || name === service)
      .flatMap((each) => each.infos());
  }

  async agents(): Promise<AgentInfo[]> {
    const view = this.#membership.view;
    return (view?.members ?? []).map(({ agent, address }) => ({
      agent,
      address,
      self: agent === this.name,
      epoch: view!.epoch,
      weights: this.#membership.weights[agent] ?? {},
    }));
  }

  watch(filter: WatchFilter, signal: AbortSignal): AsyncIterable<LeaseEvent> {
    this.#checkOpen();
    return this.#events.watch(filter, AbortSignal.any([signal, this.#stopping.signal]));
  }

  /** Counters of the agent and of its services' selectors, summed. */
  stats(): Record<string, number> {
    const sums: Record<string, number> = noCounts();
    for (const { selector } of this.#services.values()) {
      for (const [name, value] of Object.entries(selector.counters)) sums[name] = (sums[name] ?? 0) + value;
    }
    const services = [...this.#services.values()];
    return {
      ...sums,
      ...this.counters,
      ...this.#membership.counters,
      liveLeases: services.reduce((sum, { selector }) => sum + selector.liveLeases, 0),
      producers: services.reduce((sum, { selector }) => sum + selector.producerCount, 0),
      services: services.length,
      watchers: this.#events.watchers,
      watcherOverruns: this.#events.counters.overruns,
      fencedInMs: Math.round(this.#membership.fencedInMs),
      epoch: this.#membership.view?.epoch ?? 0,
    };
  }

  // Life

  /** Gives its producers to the other agents, with their leases, and stops. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #start(): Promise<void> {
    const { leases, incarnation: trusted } = await this.#journal.open();
    const { member, leaseMsMax } = await this.#join();
    const { incarnation } = member;
    // Between the incarnation that the journal knows and this one there was no other, or this is the first one ever.
    const complete = incarnation === 1 || trusted === incarnation - 1;
    if (complete) await this.#journal.trust(incarnation);
    this.#earlier = { leases, quietMs: complete ? 0 : this.#quietMsAfter(leaseMsMax) };
    this.#membership = new Membership(
      member,
      this.options.coordination,
      this.#memberTtlMs,
      this.#clock,
      this.#logger,
      { onView: (view) => this.#apply(view), onLost: () => this.#rejoin() },
    );
    await this.#membership.start();
    this.#sweeping = this.#sweep();
    const { metrics } = this.options;
    if (metrics) this.#undo.push(metrics.registerSource('lease', () => this.stats(), { agent: this.name }));
    if (metrics) this.#undo.push(this.#registerServices(metrics));
  }

  /** Per service, as the services come. */
  #registerServices(metrics: Metrics): () => void {
    const forget = new Map<string, () => void>();
    this.#onService = (service) => {
      const read = () => ({ ...service.selector.counters, liveLeases: service.selector.liveLeases });
      forget.get(service.name)?.();
      forget.set(
        service.name,
        metrics.registerSource('lease_service', read, { agent: this.name, service: service.name }),
      );
    };
    for (const service of this.#services.values()) this.#onService(service);
    return () => {
      for (const each of forget.values()) each();
    };
  }

  #onService: (service: LeaseService) => void = () => undefined;

  /** Also answers the longest lease that may live of any life under this name. */
  async #join(): Promise<{ readonly member: Member; readonly leaseMsMax: number }> {
    const { name: agent, address } = this;
    const joined: Joined = await this.options.coordination.join({ agent, address }, this.#leaseMsMax);
    this.#seal = new LeaseSeal(`${agent}:${joined.incarnation}`, joined.secret);
    this.#memberTtlMs = joined.memberTtlMs;
    const member = { agent, address, leaseMsMax: this.#leaseMsMax, incarnation: joined.incarnation };
    return { member, leaseMsMax: joined.leaseMsMax };
  }

  /** Who runs under this name elsewhere may grant until it notices that it lost its place, and then its leases live on. */
  #quietMsAfter(leaseMsMax: number): number {
    return leaseMsMax + this.#memberTtlMs;
  }

  /** Everything it owned is or will be another's, or comes back to it as to a stranger. */
  async #rejoin(): Promise<Member> {
    this.#logger.warn({}, 'lost its membership; joins again');
    for (const service of this.#services.values()) {
      for (const producer of service.ownedNames) service.disown(producer, 'moved');
    }
    this.#services.clear();
    const { member, leaseMsMax } = await this.#join();
    // Leases that it gave may live on, and it has just forgotten them.
    this.#earlier = { leases: [], quietMs: this.#quietMsAfter(leaseMsMax) };
    this.#trustMs = Number.POSITIVE_INFINITY;
    return member;
  }

  async #close(): Promise<void> {
    this.#stopping.abort();
    await this.#sweeping;
    await this.#tidying;
    for (const undo of this.#undo.reverse()) undo();
    await this.#membership.stop();
    const handed = [...this.#services.values()].flatMap((service) =>
      service.ownedNames.map((producer) => service.handOver(producer)),
    );
    try {
      await this.options.coordination.leave(this.#membership.member, handed);
    } catch (error) {
      // The others will notice after memberTtlMs, as if it had been killed; its journal keeps its leases.
      this.#logger.warn({ error }, 'could not say good-bye');
      return;
    }
    for (const service of this.#services.values()) {
      for (const producer of service.ownedNames) service.disown(producer, 'moved');
    }
  }

  async #apply(view: View): Promise<void> {
    const { mine, partial } = view.changes!;
    if (!partial) this.#disownAllBut(new Set(mine.map(keyOf)));
    const gained = mine.filter(
      (record) => this.#services.get(record.service)?.owned(record.producer)?.epoch !== record.epoch,
    );
    for (const service of new Set(gained.map((record) => this.#serviceFor(record)))) {
      // Whoever owned them before may have used tokens above what is left of this agent's block.
      this.#tokens.get(service.name)!.discard();
    }
    for (const record of mine) {
      const service = this.#serviceFor(record);
      const owned = service.owned(record.producer);
      if (owned?.epoch === record.epoch) service.update(record);
      else await this.#gain(service, record);
    }
    if (this.#earlier.quietMs > 0) this.#trustMs = this.#clock.monotonicMs() + this.#earlier.quietMs;
    this.#earlier = NOTHING;
    await this.#handOver(mine.filter((record) => record.next !== undefined));
  }

  #disownAllBut(wanted: ReadonlySet<string>): void {
    for (const service of this.#services.values()) {
      for (const producer of service.ownedNames) {
        if (!wanted.has(keyOf({ service: service.name, producer }))) service.disown(producer, 'moved');
      }
    }
  }

  async #gain(service: LeaseService, record: ProducerRecord): Promise<void> {
    service.disown(record.producer, 'moved');
    service.own(record, service.exclusive ? Math.max(record.quietMs, this.#earlier.quietMs) : 0);
    // Since another epoch the producer may have been another agent's, which knows better who holds it.
    const remembered = this.#earlier.leases.filter(
      (lease) => keyOf(lease) === keyOf(record) && lease.epoch === record.epoch,
    );
    // What came with the producer was in the journal before anything else of that epoch.
    const inherited = remembered.length > 0 ? remembered : record.inherited;
    await service.inherit(record.producer, inherited);
    this.counters.adopted += inherited.length;
    if (record.next !== undefined) service.update(record);
  }

  async #handOver(leaving: readonly ProducerRecord[]): Promise<void> {
    if (leaving.length === 0) return;
    const handed = leaving.map((record) => this.#services.get(record.service)!.handOver(record.producer));
    const moved = await this.options.coordination.handOver(this.#membership.member, handed);
    // The others may have stayed, with their leases; the next view tells.
    for (const { service, producer } of moved) this.#services.get(service)?.disown(producer, 'moved');
    this.counters.handedOver += moved.length;
  }

  async #sweep(): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      try {
        await this.#clock.sleep(this.#sweepMs, signal);
        // Leases end on time whether the coordination answers or not.
        for (const service of this.#services.values()) service.expire();
        this.#tidying ??= this.#tidy();
      } catch (error) {
        if (signal.aborted) return;
        this.#logger.warn({ error }, 'looking after leases failed; tried again soon');
      }
    }
  }

  /** What fails is tried again with the next sweep. */
  async #tidy(): Promise<void> {
    try {
      if (this.#clock.monotonicMs() >= this.#trustMs) await this.#trustJournal();
      await this.#settleAndForget();
    } catch (error) {
      this.#logger.warn({ error }, 'telling the coordination about producers failed; tried again soon');
    } finally {
      this.#tidying = undefined;
    }
  }

  async #trustJournal(): Promise<void> {
    const { incarnation } = this.#membership.member;
    this.#trustMs = Number.POSITIVE_INFINITY;
    await this.#journal.trust(incarnation);
  }

  async #settleAndForget(): Promise<void> {
    const forgetAfterMs = this.options.forgetAfterMs ?? FORGET_AFTER_MS;
    for (const service of [...this.#services.values()]) {
      const settled = service.settle();
      if (settled.length > 0) await this.options.coordination.settle(this.#membership.member, settled);
      service.settled(settled);
      for (const producer of service.silentFor(forgetAfterMs)) {
        service.depart(producer);
        this.counters.forgotten += 1;
      }
      await this.#removeDeparted(service);
    }
  }

  async #removeDeparted(service: LeaseService): Promise<void> {
    for (const record of service.departed()) {
      const removed = await this.options.coordination.deregister(this.#membership.member, record);
      const owned = service.owned(record.producer);
      if (!removed || owned?.epoch !== record.epoch || owned.generation !== record.generation) {
        await this.#membership.beat();
      } else service.disown(record.producer, 'producer-removed');
    }
  }

  readonly #tokens = new Map<string, TokenBlock>();

  #serviceFor({ service: name, mode }: { service: string; mode: ServiceMode }): LeaseService {
    const known = this.#services.get(name);
    if (known !== undefined && (known.mode === mode || !known.empty)) return known;
    const tokens =
      this.#tokens.get(name) ??
      new TokenBlock(() => this.options.coordination.reserveTokens(name, TOKENS_PER_BLOCK));
    this.#tokens.set(name, tokens);
    const service = new LeaseService(name, mode, this.#optionsOf(name), {
      clock: this.#clock,
      random: this.#random,
      seal: this.#seal,
      journal: this.#journal,
      events: this.#events,
      tokens,
      checkFence: () => this.#membership.checkFence(),
      onJournalFailure: (error) => this.#break(error),
    });
    this.#services.set(name, service);
    this.#onService(service);
    return service;
  }

  #ownedService(name: ProducerName): LeaseService | undefined {
    const service = this.#services.get(name.service);
    return service?.owned(name.producer) === undefined ? undefined : service;
  }

  /** NOT_OWNER names the agent to ask instead. */
  async #serviceOwning(name: ProducerName): Promise<LeaseService> {
    checkText('service', name.service);
    checkText('producer', name.producer);
    const known = this.#ownedService(name);
    if (known !== undefined) return known;
    const owner = await this.options.coordination.locate(name);
    if (owner === undefined) {
      throw new LeaseError(
        'NO_SUCH_PRODUCER',
        `nobody registered producer "${name.producer}" of "${name.service}"`,
      );
    }
    if (owner.agent === this.name) {
      // Given to this agent just now.
      await this.#membership.beat();
      const service = this.#ownedService(name);
      if (service !== undefined) return service;
    }
    throw new LeaseError(
      'NOT_OWNER',
      `producer "${name.producer}" of "${name.service}" belongs to agent ${owner.agent}`,
      {
        owner,
        retryAfterMs: 100,
      },
    );
  }

  #nothingHere(service: string): LeaseError {
    const weights = this.#membership.weights;
    const other = this.#membership.view?.members.find(
      ({ agent }) => agent !== this.name && weights[agent]?.[service] !== undefined,
    );
    if (other === undefined) {
      return new LeaseError('NO_PRODUCERS', `nobody has registered for service "${service}"`, {
        retryAfterMs: 1000,
      });
    }
    return new LeaseError('NOT_OWNER', `the producers of "${service}" belong to other agents`, {
      owner: { agent: other.agent, address: other.address },
    });
  }

  #optionsOf(service: string): SelectorOptions {
    return selectorOptions({ ...this.options.selector, ...this.options.services?.[service] });
  }

  #break(error: unknown): void {
    this.#broken ??= error;
    this.#logger.error(
      { error },
      'the journal of leases failed: nothing is granted until the agent is started again',
    );
  }

  #checkOpen(): void {
    if (this.#closing !== undefined) throw new LeaseError('CLOSED', 'the lease agent is stopping');
    if (this.#broken !== undefined) {
      throw new LeaseError('UNAVAILABLE', 'the journal of leases failed; start the agent again', {
        cause: this.#broken,
      });
    }
  }
}

function keyOf({ service, producer }: ProducerName): string {
  return `${service}\0${producer}`;
}

function checkText(name: string, value: string): void {
  const fits = typeof value === 'string' && value !== '' && Buffer.byteLength(value) <= TEXT_BYTES_MAX;
  if (fits && !value.includes('\0')) return;
  throw new LeaseError('BAD_REQUEST', `${name}: expected 1 to ${TEXT_BYTES_MAX} bytes without NUL`);
}

function checkRegistration({ service, producer, mode, capacity, weight, address }: Registration): void {
  checkText('service', service);
  checkText('producer', producer);
  if (!SERVICE_MODES.includes(mode)) {
    throw new LeaseError('BAD_REQUEST', `mode: expected one of ${SERVICE_MODES.join(', ')}`);
  }
  if (typeof address !== 'string' || address.length > 1000) {
    throw new LeaseError('BAD_REQUEST', 'address: expected at most 1000 characters');
  }
  if (!(capacity >= 1 && capacity <= 1e12)) {
    throw new LeaseError('BAD_REQUEST', `capacity is ${capacity}; expected a number from 1 to 1e12`);
  }
  if (weight !== undefined && !(weight > 0 && weight <= 1e12)) {
    throw new LeaseError('BAD_REQUEST', `weight is ${weight}; expected a number above 0, up to 1e12`);
  }
}
