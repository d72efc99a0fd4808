// One process's life: claims its stores, listens, starts its roles, and takes all of it down again in reverse, also when the
// start fails half-way.
//
//   start: store claims ─> admin socket ─> roles        stop: admin socket ─> roles ─> store claims

import { rmSync } from 'node:fs';
import type { VolumeProvider } from '../gateway/mount-contract.js';
import { AdminServer } from '../rpc/server.js';
import type { Clock } from '../telemetry/clock.js';
import type { Logger } from '../telemetry/logger.js';
import { Metrics } from '../telemetry/metrics.js';
import { dropClaim, takeClaim, thisProcess } from './claim.js';
import type { DaemonConfig, LeaseConfig, SwitchRoleConfig } from './config.js';
import { DaemonError } from './errors.js';
import type { LeaseRole } from './lease-role.js';
import { RuntimeDirectory } from './runtime-directory.js';
import type { SwitchRole } from './switch-role.js';
import { VERSION } from './version.js';
import { VolumeRole } from './volume-role.js';

/** After the start. Sooner when somebody asks. */
const METHODS_DELAY_MS = 1000;

/** What a daemon with a switch claims: a host has one. */
export const SWITCH_CLAIM = 'the switch';

export interface DaemonDependencies {
  readonly provider: VolumeProvider;
  readonly logger: Logger;
  readonly clock: Clock;
  readonly runtime?: RuntimeDirectory;
}

export interface DaemonStatus {
  readonly version: string;
  readonly pid: number;
  readonly socket: string;
  readonly uptimeMs: number;
  readonly volumes: readonly object[];
  /** Absent: the daemon runs no lease agent. */
  readonly lease?: object;
  /** Absent: it runs no switch. */
  readonly switch?: object;
}

export class Daemon implements AsyncDisposable {
  readonly metrics = new Metrics({ processMetrics: true });
  readonly clock: Clock;
  readonly runtime: RuntimeDirectory;
  /** Resolves when every role has ended and everything is put away. */
  readonly ended: Promise<void>;

  readonly #logger: Logger;
  readonly #startedMs: number;
  readonly #roles: VolumeRole[] = [];
  #lease: LeaseRole | undefined;
  #switch: SwitchRole | undefined;
  /** What stop() must do, last one first. */
  readonly #undo: Array<() => Promise<void> | void> = [];
  #resolveEnded!: () => void;
  #rejectEnded!: (error: unknown) => void;
  #starting: Promise<void> = Promise.resolve();
  #stopping: Promise<void> | undefined;
  #failure: { readonly error: unknown } | undefined;

  private constructor(private readonly dependencies: DaemonDependencies) {
    this.clock = dependencies.clock;
    this.runtime = dependencies.runtime ?? RuntimeDirectory.open();
    this.#logger = dependencies.logger;
    this.#startedMs = this.clock.monotonicMs();
    this.ended = new Promise((resolve, reject) => {
      this.#resolveEnded = resolve;
      this.#rejectEnded = reject;
    });
  }

  static async start(config: DaemonConfig, dependencies: DaemonDependencies): Promise<Daemon> {
    const daemon = new Daemon(dependencies);
    try {
      daemon.#starting = daemon.#start(config);
      await daemon.#starting;
    } catch (error) {
      daemon.ended.catch((later: unknown) => {
        dependencies.logger.error({ error: later }, 'clearing up after a failed start failed too');
      });
      await daemon.stop();
      throw error;
    }
    void daemon.#stopAfterRoles();
    return daemon;
  }

  get volumes(): readonly VolumeRole[] {
    return this.#roles;
  }

  get lease(): LeaseRole | undefined {
    return this.#lease;
  }

  get switch(): SwitchRole | undefined {
    return this.#switch;
  }

  async status(): Promise<DaemonStatus> {
    return {
      version: VERSION,
      pid: process.pid,
      socket: this.runtime.socket(process.pid),
      uptimeMs: Math.round(this.clock.monotonicMs() - this.#startedMs),
      volumes: await Promise.all(this.#roles.map((role) => role.status())),
      ...(this.#lease === undefined ? {} : { lease: await this.#lease.status() }),
      ...(this.#switch === undefined ? {} : { switch: await this.#switch.status() }),
    };
  }

  /**
   * Unmounts everything without waiting for dirty data, which the next start publishes. Safe to call again. Never
   * rejects: `ended` does when something could not be put away.
   */
  stop(): Promise<void> {
    // A role that is just being started would be nobody's to stop.
    const hasStarted = this.#starting.catch(() => undefined);
    this.#stopping ??= hasStarted.then(() => this.#stop());
    return this.#stopping;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  async #start(config: DaemonConfig): Promise<void> {
    this.runtime.sweep();
    const socket = this.runtime.socket(process.pid);
    for (const store of new Set(config.volumes.map((volume) => volume.store)))
      this.#claimStore(store, socket);
    const server = await AdminServer.listen({
      socketPath: socket,
      // Loaded soon, but not before whoever waits for a mount has it: what checks their parameters is not small.
      methods: async () => (await import('./methods.js')).adminMethods(this),
      metrics: this.metrics,
      logger: this.#logger,
    });
    const roles = this.#roles;
    this.#undo.push(async () => {
      const results = await Promise.allSettled(roles.map((role) => this.#stopRole(role)));
      for (const result of results) if (result.status === 'rejected') throw result.reason;
    });
    this.#undo.push(async () => {
      await server[Symbol.asyncDispose]();
      rmSync(socket, { force: true });
    });
    if (config.lease !== undefined) await this.#startLease(config.lease, socket);
    if (config.switch !== undefined) await this.#startSwitch(config.switch, socket);
    for (const volume of config.volumes) {
      roles.push(
        await VolumeRole.start(volume, {
          provider: this.dependencies.provider,
          logger: this.#logger,
          clock: this.clock,
          metrics: this.metrics,
          runtime: this.runtime,
        }),
      );
    }
    // A daemon lives long, and whoever puts another version in its place must still be able to ask this one.
    const loading = setTimeout(() => {
      server.methods().catch((error: unknown) => {
        this.#logger.error({ error }, 'commands cannot be answered');
      });
    }, METHODS_DELAY_MS);
    loading.unref();
    this.#undo.push(() => clearTimeout(loading));
  }

  async #startLease(config: LeaseConfig, socket: string): Promise<void> {
    const listen = config.listen ?? this.runtime.leaseAddress;
    for (const claimed of [config.store, listen]) this.#claimStore(claimed, socket);
    // Loaded only by daemons that have the role: gRPC is not small.
    const { LeaseRole } = await import('./lease-role.js');
    const { clock, metrics } = this;
    const role = await LeaseRole.start({ ...config, listen }, { logger: this.#logger, clock, metrics });
    this.#lease = role;
    this.#undo.push(() => role.stop());
  }

  async #startSwitch(config: SwitchRoleConfig, socket: string): Promise<void> {
    this.#claimStore(SWITCH_CLAIM, socket);
    const { SwitchRole } = await import('./switch-role.js');
    const { clock, metrics } = this;
    const agent = this.#lease?.host.agent ?? this.runtime.leaseAddress;
    const role = await SwitchRole.start(config, { logger: this.#logger, clock, metrics, agent });
    this.#switch = role;
    this.#undo.push(() => role.stop());
  }

  /** Volumes can end by themselves (somebody unmounted them), well or badly. */
  async #stopAfterRoles(): Promise<void> {
    const roles = [...this.#roles, this.#lease, this.#switch].filter((role) => role !== undefined);
    const results = await Promise.allSettled(roles.map((role) => role.ended));
    const failed = results.find((result) => result.status === 'rejected');
    if (failed !== undefined) this.#failure ??= { error: failed.reason };
    await this.stop();
  }

  #claimStore(store: string, socket: string): void {
    const path = this.runtime.storeClaim(store);
    const other = takeClaim(path, { ...thisProcess(), socket, store });
    if (other !== undefined) {
      const message = `${store} is already served by process ${other.pid}; stop that one first, or use another store`;
      throw new DaemonError('ALREADY_RUNNING', message);
    }
    this.#undo.push(() => dropClaim(path));
  }

  async #stopRole(role: VolumeRole): Promise<void> {
    try {
      await role.stop({ drain: false });
    } catch (error) {
      if ((error as { code?: unknown }).code !== 'EBUSY') throw error;
      this.#logger.warn({ mountpoint: role.config.mountpoint }, 'files are still open; detaching the mount');
      await role.stop({ drain: false, lazy: true });
    }
  }

  async #stop(): Promise<void> {
    for (const undo of this.#undo.reverse()) {
      try {
        await undo();
      } catch (error) {
        this.#failure ??= { error };
      }
    }
    if (this.#failure === undefined) return this.#resolveEnded();
    this.#rejectEnded(this.#failure.error);
  }
}
