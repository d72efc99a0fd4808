// The role of a lease agent: the host of one agent, its counters among the daemon's metrics, its end among the daemon's.
import { rmSync } from 'node:fs';
import { LeaseHost } from '../lease/host.js';
import type { Clock } from '../telemetry/clock.js';
import type { Logger } from '../telemetry/logger.js';
import type { Metrics } from '../telemetry/metrics.js';
import type { LeaseConfig } from './config.js';
import type { Role } from './role.js';

export interface LeaseRoleDependencies {
  readonly logger: Logger;
  readonly clock: Clock;
  readonly metrics: Metrics;
}

export interface LeaseRoleStatus {
  readonly agent: string;
  readonly address: string;
  readonly store: string;
  readonly coordinator: string;
  readonly counters: Readonly<Record<string, number>>;
}

export class LeaseRole implements Role {
  readonly kind = 'lease';
  readonly ended: Promise<void>;
  #resolveEnded!: () => void;
  #stopping: Promise<void> | undefined;

  private constructor(
    readonly config: LeaseConfig & { readonly listen: string },
    readonly host: LeaseHost,
  ) {
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
  }

  static async start(
    config: LeaseConfig & { readonly listen: string },
    { logger, clock, metrics }: LeaseRoleDependencies,
  ): Promise<LeaseRole> {
    const host = await LeaseHost.start({ ...config, logger, clock, metrics });
    logger.info({ agent: config.name, address: host.address }, 'the lease agent listens');
    return new LeaseRole(config, host);
  }

  get name(): string {
    return this.config.name;
  }

  async status(): Promise<LeaseRoleStatus> {
    const { name, store, listen, coordinator } = this.config;
    return {
      agent: name,
      address: this.host.address ?? listen,
      store,
      coordinator: coordinator ?? 'this agent',
      counters: this.host.agent.stats(),
    };
  }

  /** Hands its producers to the other agents, if there are any. */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #stop(): Promise<void> {
    try {
      await this.host[Symbol.asyncDispose]();
    } finally {
      const { listen } = this.config;
      if (listen.startsWith('unix:')) rmSync(listen.slice('unix:'.length), { force: true });
      this.#resolveEnded();
    }
  }
}
