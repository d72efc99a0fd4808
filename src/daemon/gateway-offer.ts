// This host's end of a network, registered with a lease agent as a gateway that others can lease. Its status is what its switch
// counts: packets through tunnels, those it had no room for, and the time its workers worked.
import { backoffMs } from '../lease/backoff.js';
import { LeaseProducer, type LeaseProducerOptions } from '../lease/producer.js';
import type { ProducerStatus } from '../lease/status.js';
import type { SwitchStats } from '../network/switch.js';
import { type Clock, pause } from '../telemetry/clock.js';
import type { Logger } from '../telemetry/logger.js';
import type { Random } from '../telemetry/random.js';

export interface GatewayOfferOptions
  extends Omit<LeaseProducerOptions, 'status' | 'clock' | 'random' | 'logger'> {
  readonly network: string;
  readonly stats: () => SwitchStats;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
}

export interface GatewayOfferView {
  readonly network: string;
  readonly service: string;
  readonly producer: string;
  readonly address: string;
  readonly registered: boolean;
  /** Why it is not registered. */
  readonly error?: string;
}

/** Drops for want of room, not by decision. */
const NO_ROOM = ['no-buffer', 'ring-full', 'tx-full', 'tx-error'];

export class GatewayOffer implements AsyncDisposable {
  readonly #stopping = new AbortController();
  readonly #running: Promise<void>;
  #producer: LeaseProducer | undefined;
  #error: string | undefined;

  constructor(private readonly options: GatewayOfferOptions) {
    this.#running = this.#register();
  }

  view(): GatewayOfferView {
    const { network, service, producer, address } = this.options;
    const registered = this.#producer !== undefined;
    const error = this.#error === undefined ? {} : { error: this.#error };
    return { network, service, producer, address, registered, ...error };
  }

  /** Takes it back: its leases end. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort();
    await this.#running;
    try {
      await this.#producer?.[Symbol.asyncDispose]();
    } catch (error) {
      // It falls silent, and is forgotten.
      this.options.logger.warn({ error }, 'the agent was not told that the gateway goes');
    }
  }

  async #register(): Promise<void> {
    const { clock, random, logger, network, service } = this.options;
    const { signal } = this.#stopping;
    const status = statusOf(this.options.stats, clock);
    for (let attempt = 0; !signal.aborted; attempt += 1) {
      try {
        this.#producer = await LeaseProducer.start({ ...this.options, status });
        this.#error = undefined;
        logger.info({ network, service }, 'the network is offered as a gateway');
        return;
      } catch (error) {
        if (this.#error === undefined)
          logger.warn({ error, network, service }, 'the gateway is not registered; tried again');
        this.#error = (error as Error).message;
        await pause(clock, backoffMs(error, attempt, random), signal);
      }
    }
  }
}

/** Answers the news since its last call. */
export function statusOf(read: () => SwitchStats, clock: Clock): () => ProducerStatus {
  let before = { ...sums(read()), atMs: clock.monotonicMs() };
  return () => {
    const stats = read();
    const now = { ...sums(stats), atMs: clock.monotonicMs() };
    const windowMs = now.atMs - before.atMs;
    const errors = Math.max(0, now.refused - before.refused);
    const busyMs = Math.max(0, now.busyNs - before.busyNs) / 1e6;
    const carried = Math.max(0, now.carried - before.carried);
    before = now;
    return {
      utilisation: windowMs <= 0 ? 0 : Math.min(1, busyMs / (windowMs * stats.workers.length)),
      inFlight: stats.workers.reduce((sum, { waiting }) => sum + waiting, 0),
      ...{ operations: carried + errors, errors, latencyMs: 0, windowMs },
    };
  };
}

function sums({ counters, ports, workers }: SwitchStats) {
  const refused = Object.values(ports).flatMap(({ drops }) => NO_ROOM.map((reason) => drops[reason] ?? 0));
  return {
    carried: (counters.encapsulated ?? 0) + (counters.decapsulated ?? 0),
    refused: refused.reduce((sum, count) => sum + count, 0),
    // Waiting awake is not work.
    busyNs: workers.reduce((sum, { cpuNs, idle }) => sum + cpuNs - idle.spunNs, 0),
  };
}
