// The consumer's side: asks for a lease, keeps it alive, gives it back, and carries its report about the producer to the next request.
//
//   sent ──────────────── granted ────── renew at 0.5 .. 0.8 of the TTL ────── deadline
//     └─ the deadline counts from here, by the monotonic clock: it never lies later than the agent's own
import { type Clock, pause, systemClock } from '../telemetry/clock.js';
import { type Random, systemRandom } from '../telemetry/random.js';
import { AgentDirectory, type Connect, isElsewhere } from './agent-directory.js';
import { backoffMs } from './backoff.js';
import type {
  AgentApi,
  Grant,
  LeaseExplanation,
  LeaseReference,
  LeaseRequest,
  PreviousLease,
} from './contract.js';
import { LeaseError } from './errors.js';
import type { ConsumerReport } from './status.js';

export interface LeaseConsumerOptions {
  /** Who asks: unique, for reports and renewals are accepted from the holder's name only. */
  readonly consumer: string;
  readonly agents: readonly AgentApi[];
  readonly connect?: Connect;
  readonly clock?: Clock;
  readonly random?: Random;
}

export interface AcquireOptions {
  /** Ask again for so long while nothing can be leased, milliseconds; default 0: fail at once. */
  readonly waitMs?: number;
  readonly signal?: AbortSignal;
  /** Keep it alive until it is given back; default true. */
  readonly renew?: boolean;
  /** Listen to its agent, to know at once that it was taken away and not only when it is renewed; default false: a stream a lease. */
  readonly watch?: boolean;
}

/** Clocks may differ in rate by less than this: the holder believes in its lease a little shorter than the agent. */
const RATE_MARGIN = 0.01;
const RENEW_FROM = 0.5;
const WATCH_AGAIN_MS = 1_000;
const RENEW_TO = 0.8;

/** Waiting for a lease ends on these at once: asking again would not help. */
const HOPELESS: ReadonlySet<string> = new Set(['BAD_REQUEST', 'BAD_STATUS']);

export class LeaseConsumer {
  readonly #directory: AgentDirectory;
  readonly #clock: Clock;
  readonly #random: Random;
  /** The report about the last producer of each service, until the next request takes it along. */
  readonly #previous = new Map<string, PreviousLease>();

  constructor(readonly options: LeaseConsumerOptions) {
    this.#directory = new AgentDirectory(options.agents, options.connect);
    this.#clock = options.clock ?? systemClock;
    this.#random = options.random ?? systemRandom;
  }

  async acquire(service: string, options: AcquireOptions = {}): Promise<Lease> {
    const { waitMs = 0, signal, renew = true, watch = false } = options;
    const untilMs = this.#clock.monotonicMs() + waitMs;
    for (let attempt = 0; ; attempt += 1) {
      signal?.throwIfAborted();
      try {
        return await this.#ask(service, renew, watch);
      } catch (error) {
        const { code } = error as { code?: string };
        const pauseMs = backoffMs(error, attempt, this.#random);
        if (HOPELESS.has(code ?? '') || this.#clock.monotonicMs() + pauseMs > untilMs) throw error;
        await this.#clock.sleep(pauseMs, signal);
      }
    }
  }

  async #ask(service: string, renew: boolean, watch: boolean): Promise<Lease> {
    const agents = await this.#directory.forService(
      service,
      this.#clock.monotonicMs(),
      this.#random.uniform(),
    );
    let last: unknown;
    for (const agent of agents) {
      const previous = this.#previous.get(service);
      const request: LeaseRequest = {
        service,
        consumer: this.options.consumer,
        ...(previous === undefined ? {} : { previous }),
      };
      const sentMs = this.#clock.monotonicMs();
      try {
        const { api, value } = await this.#directory.atOwner(agent, (each) => each.request(request));
        // Another lease may have ended since.
        if (this.#previous.get(service) === previous) this.#previous.delete(service);
        return new Lease(
          value,
          sentMs,
          api,
          this.#directory,
          this.options.consumer,
          this.#clock,
          this.#random,
          {
            renew,
            watch,
            onEnd: (report) => {
              if (report !== undefined) this.#previous.set(service, { ...report, leaseId: value.leaseId });
            },
          },
        );
      } catch (error) {
        last = error;
        this.#directory.doubt();
        // It would be refused as often as it is sent.
        const refused = error instanceof LeaseError && HOPELESS.has(error.code);
        if (refused && this.#previous.get(service) === previous) this.#previous.delete(service);
        const full = error instanceof LeaseError && FULL_HERE.has(error.code);
        if (!full && !isElsewhere(error)) throw error;
      }
    }
    throw last;
  }
}

/** One agent has nothing to give; another may. */
const FULL_HERE: ReadonlySet<string> = new Set(['NO_PRODUCERS', 'NONE_HEALTHY', 'CAPACITY_EXHAUSTED']);

const GONE: ReadonlySet<string> = new Set(['NO_SUCH_LEASE', 'NO_SUCH_PRODUCER']);

interface LeaseHooks {
  readonly renew: boolean;
  readonly watch: boolean;
  readonly onEnd: (report: ConsumerReport | undefined) => void;
}

/** A lease that is held. `signal` aborts when it is not held any more, whatever the reason. */
export class Lease implements AsyncDisposable {
  readonly counters = { renewals: 0, renewalsFailed: 0 };
  readonly #ended = new AbortController();
  readonly #draining = new AbortController();
  #api: AgentApi;
  #deadlineMs: number;
  #ttlMs: number;
  /** Its holder is done with it, or its agent was told so. */
  #given = false;
  readonly #running: Promise<void>;

  constructor(
    readonly grant: Grant,
    sentMs: number,
    api: AgentApi,
    private readonly directory: AgentDirectory,
    private readonly consumer: string,
    private readonly clock: Clock,
    private readonly random: Random,
    private readonly hooks: LeaseHooks,
  ) {
    this.#api = api;
    this.#ttlMs = grant.ttlMs;
    this.#deadlineMs = sentMs + grant.ttlMs * (1 - RATE_MARGIN);
    this.#running = hooks.renew ? this.#keepAlive() : this.#runOut();
    if (hooks.watch) void this.#listen();
  }

  /** Whether it may be used at this moment; ask before every use that counts, and let the resource check the fencing token. */
  get held(): boolean {
    return !this.#ended.signal.aborted && this.clock.monotonicMs() < this.#deadlineMs;
  }

  /** Milliseconds of monotonic time that it still lives without a renewal. */
  get remainingMs(): number {
    return this.held ? this.#deadlineMs - this.clock.monotonicMs() : 0;
  }

  get signal(): AbortSignal {
    return this.#ended.signal;
  }

  /** Aborts when a renewal was refused because the producer drains: it is held to its end, and another one is to be asked for. */
  get draining(): AbortSignal {
    return this.#draining.signal;
  }

  /** Why it went where it went, as its agent knows. */
  async explain(): Promise<LeaseExplanation> {
    const { leaseId } = this.grant;
    return (await this.directory.atOwner(this.#api, (each) => each.explain(leaseId))).value;
  }

  get reference(): LeaseReference {
    const { leaseId, service, producer, fencingToken } = this.grant;
    return { leaseId, service, producer, fencingToken, consumer: this.consumer };
  }

  /** Renews now; the lease is lost when that is refused. */
  async renew(): Promise<void> {
    const sentMs = this.clock.monotonicMs();
    const { api, value } = await this.directory.atOwner(this.#api, (each) => each.renew(this.reference));
    this.#api = api;
    this.#ttlMs = value.ttlMs;
    this.#deadlineMs = Math.max(this.#deadlineMs, sentMs + value.ttlMs * (1 - RATE_MARGIN));
    this.counters.renewals += 1;
  }

  /** Done with it: it ends with the next request of this consumer, which carries the report, or by itself. No message is sent. */
  finish(report: ConsumerReport): void {
    this.hooks.onEnd(report);
    this.#given = true;
    this.#end(new LeaseError('NO_SUCH_LEASE', 'the lease was given back'));
  }

  /** Looks after it no more: it runs out by itself. */
  abandon(): void {
    this.#given = true;
    this.#end(new LeaseError('NO_SUCH_LEASE', 'the lease is not looked after any more'));
  }

  /** Gives it back at once; also one that was taken away, so that its producer need not wait for the end of its time. */
  async release(): Promise<void> {
    const ranOut = this.#ended.signal.aborted && this.clock.monotonicMs() >= this.#deadlineMs;
    if (this.#given || ranOut) return;
    this.#given = true;
    this.#end(new LeaseError('NO_SUCH_LEASE', 'the lease was given back'));
    await this.#running;
    try {
      await this.directory.atOwner(this.#api, (each) => each.release(this.reference));
    } catch (error) {
      // It had ended by itself, or with its producer.
      if (!(error instanceof LeaseError && GONE.has(error.code))) throw error;
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.release();
  }

  #end(reason: unknown): void {
    if (!this.#ended.signal.aborted) this.#ended.abort(reason);
  }

  async #keepAlive(): Promise<void> {
    const { signal } = this.#ended;
    let pauseMs = this.#renewalPauseMs();
    for (let attempt = 0; !signal.aborted; ) {
      try {
        await this.clock.sleep(
          Math.min(pauseMs, Math.max(0, this.#deadlineMs - this.clock.monotonicMs())),
          signal,
        );
        if (!this.held) break;
        await this.renew();
        attempt = 0;
        pauseMs = this.#renewalPauseMs();
      } catch (error) {
        if (signal.aborted) return;
        this.counters.renewalsFailed += 1;
        const { code } = error as { code?: string };
        if (GONE.has(code ?? '')) return this.#end(error);
        if (code === 'DRAINING') this.#draining.abort(error);
        // It drains: held to its end. Or nobody answers: asked again until the deadline.
        pauseMs = code === 'DRAINING' ? Number.POSITIVE_INFINITY : backoffMs(error, attempt, this.random);
        attempt += 1;
      }
    }
    this.#end(new LeaseError('NO_SUCH_LEASE', 'the lease ran out: no agent renewed it in time'));
  }

  /** What is missed before the stream stands, or while it is broken, the next renewal tells. */
  async #listen(): Promise<void> {
    const { service, producer, leaseId } = this.grant;
    const { signal } = this.#ended;
    for (let attempt = 0; !signal.aborted; attempt += 1) {
      try {
        const events = this.#api.watch({ service, producer, consumer: this.consumer }, signal);
        for await (const event of events) {
          attempt = 0;
          if (event.leaseId !== leaseId || event.kind !== 'revoked') continue;
          return this.#end(new LeaseError('NO_SUCH_LEASE', `lease ${leaseId} was taken away`));
        }
        await this.clock.sleep(WATCH_AGAIN_MS, signal);
      } catch (error) {
        await pause(this.clock, backoffMs(error, attempt, this.random), signal);
      }
    }
  }

  async #runOut(): Promise<void> {
    const { signal } = this.#ended;
    try {
      while (this.held) await this.clock.sleep(this.remainingMs, signal);
    } catch (error) {
      if (signal.aborted) return;
      throw error;
    }
    this.#end(new LeaseError('NO_SUCH_LEASE', 'the lease ran out'));
  }

  #renewalPauseMs(): number {
    return this.#ttlMs * (RENEW_FROM + (RENEW_TO - RENEW_FROM) * this.random.uniform());
  }
}
