// The library: what a script gets from `import { ... } from 'penstock'`.
export {
  type DaemonConfig,
  embeddedDefault,
  loadConfig,
  parseConfig,
  type VolumeConfig,
} from './daemon/config.js';
export { Daemon, type DaemonDependencies, type DaemonStatus } from './daemon/daemon.js';
export { type MountVolumeOptions, mountVolume as mount } from './daemon/mount-volume.js';
export { volumeProvider } from './daemon/volume-provider.js';
export { formatStore } from './gateway/mount.js';
export type {
  DrainReport,
  FormatOptions,
  FormatReport,
  FsckReport,
  FsyncPolicy,
  GcReport,
  MountedVolume,
  MountOptions,
  OnProgress,
  Progress,
  Transport,
  VolumeProvider,
  VolumeStats,
  VolumeStatus,
  WarmupReport,
} from './gateway/mount-contract.js';
export { type Clock, systemClock } from './telemetry/clock.js';
export { createLogger, type Logger, type LogLevel } from './telemetry/logger.js';
export { Metrics } from './telemetry/metrics.js';
