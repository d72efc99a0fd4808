// The gateway of one network, leased: who gets what no station of the network is known to have.
//
//   searching ──granted──> leased ──echoes lost, producer drains, taken away, run out──> searching
//       │                                                                                  └─ with the report on the last one
//       └─ refused, or nobody answers: said once, asked again after backoff with jitter
//
// While it searches the last gateway stays in place: of a shared service as long as it answers echoes, and at least until its
// lease would have ended; of an exclusive service never beyond its lease, nor while another one is asked for, since the request
// gives it up. A move is made before it is broken: unicast of the old gateway still comes in for LINGER_MS.
import { backoffMs } from '../lease/backoff.js';
import type { Lease, LeaseConsumer } from '../lease/consumer.js';
import { LeaseError } from '../lease/errors.js';
import { formatIp, type IpAddress, parseIp } from '../network/addresses.js';
import type { NetworkGateway } from '../network/compile.js';
import type { GatewayConfig } from '../network/config.js';
import { type Clock, pause } from '../telemetry/clock.js';
import type { Logger } from '../telemetry/logger.js';
import type { Random } from '../telemetry/random.js';
import { type EchoFacts, EchoWindow } from './echo-window.js';

export interface LeasedGatewayOptions {
  readonly network: string;
  readonly config: Pick<GatewayConfig, 'service' | 'probeMs'>;
  readonly plane: { setGateway(network: string, gateway: NetworkGateway): Promise<void> };
  readonly consumer: LeaseConsumer;
  /** Round-trip time, milliseconds, undefined when lost; absent: its underlay cannot be probed from here. */
  readonly echo?: (address: string, timeoutMs: number) => Promise<number | undefined>;
  /** Another gateway is in place. */
  readonly onMove?: () => void;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
}

export interface LeasedGatewayView {
  readonly network: string;
  readonly service: string;
  /** kept: its lease is over, or given back for another one that did not come yet. */
  readonly state: 'searching' | 'leased' | 'kept';
  readonly producer?: string;
  readonly address?: string;
  readonly leaseId?: string;
  /** The weight by which it was drawn, when its agent told. */
  readonly weight?: number;
  /** In place since, milliseconds since 1970. */
  readonly sinceMs?: number;
  readonly remainingMs?: number;
  /** Of the last echoes; absent when the underlay cannot be probed. */
  readonly echoes?: EchoFacts;
  /** Why there is none, or no other one; absent when all is well. */
  readonly error?: string;
  readonly counters: Readonly<Record<string, number>>;
}

const LINGER_MS = 2_000;
const ECHO_TIMEOUT_MS_MIN = 250;
/** On a producer that cannot be used: the next request avoids it. */
const USELESS = { operations: 1, errors: 1, rejected: 0, latencyP50Ms: 0, latencyP99Ms: 0, windowMs: 0 };

/** A gateway in place. */
interface Endpoint {
  readonly lease: Lease;
  readonly ip: IpAddress;
  readonly sinceMs: number;
  readonly echoes: EchoWindow;
  /** Aborts when its echoes say that it is gone. */
  readonly failed: AbortController;
  readonly closed: AbortController;
  weight?: number;
  /** Monotonic; a shared one that does not answer any more stays until then. */
  keptUntilMs: number;
}

export class LeasedGateway implements AsyncDisposable {
  readonly counters = { leases: 0, moves: 0, refused: 0, echoes: 0, echoesLost: 0 };
  readonly #stopping = new AbortController();
  readonly #logger: Logger;
  #endpoint: Endpoint | undefined;
  /** Why the last request got nothing. */
  #refused: string | undefined;
  /** Which gateway does not answer, until one does. */
  #silent: string | undefined;
  #said = '';
  #lingering = new AbortController();
  readonly #running: Promise<void>;

  constructor(private readonly options: LeasedGatewayOptions) {
    this.#logger = options.logger.child({ network: options.network, service: options.config.service });
    this.#running = this.#run();
  }

  view(): LeasedGatewayView {
    const { network, config, echo } = this.options;
    const { service } = config;
    const error = this.#refused ?? this.#silent;
    const known = {
      network,
      service,
      counters: { ...this.counters },
      ...(error === undefined ? {} : { error }),
    };
    const endpoint = this.#endpoint;
    if (endpoint === undefined) return { ...known, state: 'searching' };
    const { lease, weight, sinceMs, echoes } = endpoint;
    const { producer, address, leaseId } = lease.grant;
    return {
      ...known,
      ...{ state: lease.held ? 'leased' : 'kept', producer, address, leaseId, sinceMs },
      ...(weight === undefined ? {} : { weight }),
      ...(lease.held ? { remainingMs: lease.remainingMs } : {}),
      ...(echo === undefined ? {} : { echoes: echoes.facts() }),
    };
  }

  /** Gives the lease back; the network has no gateway then. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort();
    this.#lingering.abort();
    await this.#running;
    const endpoint = this.#endpoint;
    if (endpoint === undefined) return;
    await this.#takeAway();
    await this.#giveBack(endpoint.lease);
  }

  async #run(): Promise<void> {
    const { clock, random } = this.options;
    const { signal } = this.#stopping;
    for (let attempt = 0; !signal.aborted; ) {
      try {
        if (this.#isOver()) await this.#takeAway();
        const lease = await this.options.consumer.acquire(this.options.config.service, { watch: true });
        if (signal.aborted) return await this.#giveBack(lease);
        await this.#moveTo(lease);
        attempt = 0;
        this.#refused = undefined;
        await this.#untilLeft(this.#endpoint!);
      } catch (error) {
        if (signal.aborted) return;
        this.#note(error);
        await pause(clock, backoffMs(error, attempt, random), signal);
        attempt += 1;
      }
    }
  }

  /** Whether the gateway in place may not stay any longer, now that its lease is not held. */
  #isOver(): boolean {
    const endpoint = this.#endpoint;
    if (endpoint === undefined || endpoint.lease.held) return false;
    if (endpoint.lease.grant.mode === 'exclusive') return true;
    return endpoint.echoes.failing && this.options.clock.monotonicMs() >= endpoint.keptUntilMs;
  }

  async #takeAway(): Promise<void> {
    this.#lingering.abort();
    await this.options.plane.setGateway(this.options.network, {});
    this.#endpoint?.closed.abort();
    this.#endpoint = undefined;
  }

  /** Throws when it cannot be used; it is given back then. */
  async #moveTo(lease: Lease): Promise<void> {
    const { plane, network, clock, onMove } = this.options;
    const { producer, address } = lease.grant;
    const before = this.#endpoint;
    const ip = parseIp(address);
    const moved = ip !== undefined && (before === undefined || formatIp(before.ip) !== formatIp(ip));
    try {
      if (ip === undefined)
        throw new LeaseError('BAD_REQUEST', `gateway "${producer}" gives no tunnel address: "${address}"`);
      if (moved) {
        this.#lingering.abort();
        await plane.setGateway(network, { current: ip, leaving: before ? [before.ip] : [] });
      }
    } catch (error) {
      lease.finish(USELESS);
      if (before !== undefined) this.#linger(before.ip);
      throw error;
    }
    before?.closed.abort();
    this.counters.leases += 1;
    const endpoint: Endpoint = {
      ...{ lease, ip, echoes: new EchoWindow() },
      ...{ failed: new AbortController(), closed: new AbortController() },
      sinceMs: moved ? clock.wallMs() : before!.sinceMs,
      keptUntilMs: Number.POSITIVE_INFINITY,
    };
    this.#endpoint = endpoint;
    void this.#watch(endpoint);
    void this.#learnWeight(endpoint);
    if (!moved) return;
    this.counters.moves += 1;
    this.#logger.info({ producer, address, lease: lease.grant.leaseId }, 'the network has another gateway');
    onMove?.();
    this.#silent = undefined;
    this.#said = '';
    if (before !== undefined) this.#linger(ip);
  }

  /** Those before `current` are listened to a little longer. */
  #linger(current: IpAddress): void {
    this.#lingering.abort();
    this.#lingering = new AbortController();
    void this.#endLinger(current, this.#lingering.signal);
  }

  async #endLinger(current: IpAddress, signal: AbortSignal): Promise<void> {
    const { clock, plane, network } = this.options;
    try {
      await clock.sleep(LINGER_MS, signal);
      if (!signal.aborted) await plane.setGateway(network, { current });
    } catch (error) {
      if (!signal.aborted) this.#logger.warn({ error }, 'the gateway of before is still listened to');
    }
  }

  /** Echoes at a steady pace, until the gateway is given up. */
  async #watch({ lease, echoes, failed, closed }: Endpoint): Promise<void> {
    const { echo, clock, config } = this.options;
    if (echo === undefined) return;
    const { signal } = closed;
    let said = false;
    while (!signal.aborted) {
      const startedMs = clock.monotonicMs();
      try {
        const rttMs = await echo(lease.grant.address, Math.max(ECHO_TIMEOUT_MS_MIN, config.probeMs));
        if (signal.aborted) return;
        this.counters.echoes += 1;
        if (rttMs === undefined) this.counters.echoesLost += 1;
        else this.#silent = undefined;
        echoes.add(startedMs, rttMs);
        if (echoes.failing) failed.abort();
        await clock.sleep(Math.max(0, startedMs + config.probeMs - clock.monotonicMs()), signal);
      } catch (error) {
        if (signal.aborted) return;
        if (!said) this.#logger.warn({ error }, 'the gateway is not probed; tried again');
        said = true;
        await pause(clock, config.probeMs, signal);
      }
    }
  }

  async #learnWeight(endpoint: Endpoint): Promise<void> {
    try {
      const { candidates } = await endpoint.lease.explain();
      const weight = candidates.find(({ chosen }) => chosen)?.weight;
      if (weight !== undefined) endpoint.weight = weight;
    } catch (error) {
      this.#logger.debug({ error }, 'the agent did not say why it chose this gateway');
    }
  }

  /** Resolves when another one is to be asked for; the report on this one is on its way then. */
  async #untilLeft(endpoint: Endpoint): Promise<void> {
    const { lease, failed, echoes } = endpoint;
    const { signal: stopped } = this.#stopping;
    await aborted(AbortSignal.any([stopped, lease.signal, lease.draining, failed.signal]));
    if (stopped.aborted) return;
    const { producer } = lease.grant;
    const { sent, lost } = echoes.facts();
    const why = lease.signal.aborted
      ? (lease.signal.reason as Error).message
      : lease.draining.aborted
        ? 'it drains'
        : 'its echoes are lost';
    const said = `${producer}: ${why}`;
    if (failed.signal.aborted) this.#silent = said;
    // Where it is the only one it comes again and again.
    if (this.#said !== said)
      this.#logger.info({ producer, why, sent, lost }, 'the network asks for another gateway');
    this.#said = said;
    endpoint.keptUntilMs = this.options.clock.monotonicMs() + lease.remainingMs;
    lease.finish(echoes.report());
  }

  /** Says it once, until it is another mistake or all is well. */
  #note(error: unknown): void {
    const { message, code } = error as { readonly message: string; readonly code?: string };
    this.counters.refused += 1;
    const text = code === undefined ? message : `${code}: ${message}`;
    if (this.#refused === undefined) this.#logger.warn({ error }, 'no gateway is leased; asked for again');
    this.#refused = text;
  }

  async #giveBack(lease: Lease): Promise<void> {
    try {
      await lease.release();
    } catch (error) {
      // It runs out by itself.
      this.#logger.debug({ error }, 'the lease of the gateway could not be given back');
    }
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
}
