// The library: what a script gets from `import { ... } from 'penstock'`.

export type { ContentEntry } from './access/content-manifest.js';
export {
  type DaemonConfig,
  embeddedDefault,
  loadConfig,
  parseConfig,
  type VolumeConfig,
} from './daemon/config.js';
export { Daemon, type DaemonDependencies, type DaemonStatus } from './daemon/daemon.js';
export type { GatewayOfferView } from './daemon/gateway-offer.js';
export type { LeasedGatewayView } from './daemon/leased-gateway.js';
export { LeasedGateways, type LeasedGatewaysOptions } from './daemon/leased-gateways.js';
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
  ManifestReport,
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
export { LeaseAgent, type LeaseAgentOptions } from './lease/agent.js';
export {
  type AcquireOptions,
  Lease,
  LeaseConsumer,
  type LeaseConsumerOptions,
} from './lease/consumer.js';
export type {
  AgentApi,
  AgentInfo,
  Grant,
  LeaseEvent,
  LeaseExplanation,
  LeaseRequest,
  ProducerInfo,
  Registration,
  ServiceMode,
} from './lease/contract.js';
export { LeaseError, type LeaseErrorCode } from './lease/errors.js';
export { FencingGuard } from './lease/fencing.js';
export { RemoteAgent } from './lease/grpc/client.js';
export type { TlsFiles } from './lease/grpc/credentials.js';
export { LeaseHost, type LeaseHostOptions } from './lease/host.js';
export { LeaseProducer, type LeaseProducerOptions } from './lease/producer.js';
export { Selector } from './lease/selector.js';
export type { SelectorOptions } from './lease/selector-options.js';
export type { ConsumerReport, ProducerStatus } from './lease/status.js';
export {
  Capture,
  type CapturedPacket,
  type CaptureOptions,
  type CapturePortCounts,
  type CaptureSummary,
} from './network/capture.js';
export type { SwitchConfigInput } from './network/config.js';
export { describePacket } from './network/describe-packet.js';
export { NetworkError, type NetworkErrorCode } from './network/errors.js';
export { buildFrame, type PacketDescription } from './network/packet-description.js';
export { type PcapngOptions, type PcapngPacket, type PcapngSink, PcapngWriter } from './network/pcapng.js';
export { type PacketHandler, RingPacket, Verdict } from './network/script.js';
export {
  type RuleStats,
  Switch,
  type SwitchOptions,
  type SwitchStats,
  type SwitchView,
  type TraceResult,
} from './network/switch.js';
export { type Clock, systemClock } from './telemetry/clock.js';
export { createLogger, type Logger, type LogLevel } from './telemetry/logger.js';
export { Metrics } from './telemetry/metrics.js';
