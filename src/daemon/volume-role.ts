// The role of a mounted volume: prepares the place, makes the volume when the configuration says so, mounts it, and keeps the
// register of mounts true as long as the mount lives.
import type { MountedVolume, VolumeProvider, VolumeStatus } from '../gateway/mount-contract.js';
import { canonicalMountpoint, prepareMountpoint } from '../gateway/mountpoint.js';
import type { Clock } from '../telemetry/clock.js';
import type { Logger } from '../telemetry/logger.js';
import type { Metrics } from '../telemetry/metrics.js';
import { dropClaim, takeClaim, thisProcess } from './claim.js';
import type { VolumeConfig } from './config.js';
import { DaemonError } from './errors.js';
import type { Role, StopOptions } from './role.js';
import type { RuntimeDirectory } from './runtime-directory.js';

export interface VolumeRoleDependencies {
  readonly provider: VolumeProvider;
  readonly logger: Logger;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly runtime: RuntimeDirectory;
}

export class VolumeRole implements Role {
  readonly kind = 'volume';
  readonly ended: Promise<void>;
  #hasEnded = false;

  private constructor(
    readonly config: VolumeConfig,
    readonly volume: MountedVolume,
    private readonly logger: Logger,
    forget: () => void,
  ) {
    this.ended = volume.ended.finally(() => {
      this.#hasEnded = true;
      forget();
    });
  }

  static async start(config: VolumeConfig, dependencies: VolumeRoleDependencies): Promise<VolumeRole> {
    const { provider, clock, metrics, runtime } = dependencies;
    const logger = dependencies.logger.child({ volume: config.name });
    const mountpoint = canonicalMountpoint(config.mountpoint);
    const claim = runtime.mountClaim(mountpoint);
    const holder = { ...thisProcess(), socket: runtime.socket(process.pid), store: config.store };
    const other = takeClaim(claim, { ...holder, volume: config.name, mountpoint });
    if (other !== undefined) {
      const message = `${mountpoint} is already mounted by process ${other.pid}; run "penstock umount ${mountpoint}" first`;
      throw new DaemonError('ALREADY_RUNNING', message);
    }
    try {
      const wasDead = await prepareMountpoint(mountpoint, { create: config.createMountpoint });
      if (wasDead) logger.warn({ mountpoint }, 'took away the mount of a daemon that is gone');
      if (config.format) {
        const { created } = await provider.formatStore({
          store: config.store,
          volume: config.name,
          ifAbsent: true,
        });
        if (created) logger.info({ store: config.store }, 'made the volume');
      }
      const volume = await provider.mount({
        store: config.store,
        volume: config.name,
        mountpoint,
        transport: config.transport,
        cacheDirectory: config.cacheDirectory,
        cacheBytes: config.cacheBytes,
        ...(config.dirtyBytes === undefined ? {} : { dirtyBytes: config.dirtyBytes }),
        fsync: config.fsync,
        mountOptions: config.mountOptions,
        readOnly: config.readOnly,
        logger,
        clock,
      });
      const forgetMetrics = metrics.registerSource('volume', () => volume.stats(), {
        volume: config.name,
        mountpoint,
      });
      return new VolumeRole({ ...config, mountpoint }, volume, logger, () => {
        forgetMetrics();
        dropClaim(claim);
      });
    } catch (error) {
      dropClaim(claim);
      throw error;
    }
  }

  get name(): string {
    return this.config.name;
  }

  status(): Promise<VolumeStatus> {
    return this.volume.status();
  }

  async stop({ drain, lazy = false, onProgress = () => undefined, signal }: StopOptions): Promise<void> {
    if (this.#hasEnded) return;
    if (drain) await this.volume.drain(onProgress, signal ?? new AbortController().signal);
    const { cache } = await this.volume.status();
    await this.volume.unmount({ drain, lazy });
    await this.ended;
    if (!drain && cache.dirtyBytes > 0) {
      const left = { dirtyBytes: cache.dirtyBytes, dirtyFiles: cache.dirtyFiles, directory: cache.directory };
      this.logger.warn(
        left,
        'unmounted; what was not yet published is safe in the cache and goes up after the next mount',
      );
    }
  }
}
