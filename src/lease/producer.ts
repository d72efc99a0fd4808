// The producer's side: registers with an agent, pushes its status to the one that owns it, and registers again when that agent, or
// all of them, have forgotten it.
//
//   register ──> report ──(interval x 0.8..1.2)──> report ...      NO_SUCH_PRODUCER, or nobody answers ──> register
import { type Clock, systemClock } from '../telemetry/clock.js';
import { type Logger, silentLogger } from '../telemetry/logger.js';
import { type Random, systemRandom } from '../telemetry/random.js';
import { AgentDirectory, type Connect } from './agent-directory.js';
import { backoffMs } from './backoff.js';
import type { AgentApi, Registration } from './contract.js';
import type { ProducerStatus } from './status.js';

export interface LeaseProducerOptions extends Registration {
  /** Agents to ask first. */
  readonly agents: readonly AgentApi[];
  readonly connect?: Connect;
  /** Its news since the last call; absent: heartbeats only. */
  readonly status?: () => ProducerStatus | undefined;
  /** Default: what the agent asks for, milliseconds. */
  readonly reportIntervalMs?: number;
  readonly clock?: Clock;
  readonly random?: Random;
  readonly logger?: Logger;
}

export class LeaseProducer implements AsyncDisposable {
  readonly counters = { registrations: 0, reports: 0, failures: 0 };
  readonly #directory: AgentDirectory;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #logger: Logger;
  readonly #stopping = new AbortController();
  #owner: AgentApi | undefined;
  #intervalMs = 1000;
  #running: Promise<void> = Promise.resolve();

  private constructor(private readonly options: LeaseProducerOptions) {
    this.#directory = new AgentDirectory(options.agents, options.connect);
    this.#clock = options.clock ?? systemClock;
    this.#random = options.random ?? systemRandom;
    this.#logger = (options.logger ?? silentLogger).child({ producer: options.producer });
  }

  /** Registered when it resolves. */
  static async start(options: LeaseProducerOptions): Promise<LeaseProducer> {
    const producer = new LeaseProducer(options);
    await producer.#register();
    producer.#running = producer.#run();
    return producer;
  }

  /** Sends its status now. */
  async report(): Promise<void> {
    const status = this.options.status?.();
    const { api } = await this.#directory.atOwner(this.#owner, (agent) => agent.report(this.options, status));
    this.#owner = api;
    this.counters.reports += 1;
  }

  /** Takes no new leases; the ones it has run out. */
  async drain(draining = true): Promise<void> {
    await this.#directory.atOwner(this.#owner, (agent) => agent.drain(this.options, draining));
  }

  /** Deregisters; its leases are revoked. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    await this.#directory.atOwner(this.#owner, (agent) => agent.deregister(this.options));
  }

  /** Goes silent, as if it had died. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
  }

  async #register(): Promise<void> {
    const { service, producer, mode, address, capacity, weight } = this.options;
    const registration = {
      service,
      producer,
      mode,
      address,
      capacity,
      ...(weight === undefined ? {} : { weight }),
    };
    const { value, api } = await this.#directory.atOwner(undefined, (agent) => agent.register(registration));
    this.counters.registrations += 1;
    this.#owner = api;
    this.#intervalMs = this.options.reportIntervalMs ?? value.reportIntervalMs;
    await this.report();
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping;
    for (let failures = 0; !signal.aborted; ) {
      try {
        const waitMs = this.#intervalMs * (0.8 + 0.4 * this.#random.uniform());
        await this.#clock.sleep(
          failures === 0 ? waitMs : backoffMs(undefined, failures, this.#random),
          signal,
        );
        // What failed once may have lost its place: registering again is harmless.
        if (failures === 0) await this.report();
        else await this.#register();
        failures = 0;
      } catch (error) {
        if (signal.aborted) return;
        failures += 1;
        this.counters.failures += 1;
        this.#logger.warn({ error }, 'the agent did not take the status; registers again');
      }
    }
  }
}
