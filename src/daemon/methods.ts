// The methods of the admin protocol: what a running daemon can be asked and told.
import { z } from 'zod';
import type { MountedVolume, OnProgress } from '../gateway/mount-contract.js';
import type { CaptureOptions } from '../network/capture.js';
import type { SwitchConfigInput } from '../network/config.js';
import { RpcError } from '../rpc/protocol.js';
import type { CallContext, Method } from '../rpc/server.js';
import type { Daemon } from './daemon.js';
import { DaemonError } from './errors.js';
import { IMAGE_BYTES_MAX } from './port-image.js';
import type { SwitchRole } from './switch-role.js';
import type { VolumeRole } from './volume-role.js';

const mountpoint = z.string().min(1);
const volumeSchema = z.strictObject({ mountpoint });
const warmupSchema = z.strictObject({ mountpoint, path: z.string() });
const manifestSchema = z.strictObject({ mountpoint, expected: z.string().exactOptional() });
const umountSchema = z.strictObject({
  mountpoint,
  drain: z.boolean().default(true),
  lazy: z.boolean().default(false),
});
const switchApplySchema = z.strictObject({ document: z.custom<SwitchConfigInput>() });
const switchShowSchema = z.strictObject({ connections: z.number().int().min(0).max(100_000).default(100) });
const switchTraceSchema = z.strictObject({
  port: z.string().min(1),
  packet: z.union([
    z.strictObject({ frame: z.string().regex(/^([0-9a-f]{2})+$/i, 'expected hexadecimal digits') }),
    z.strictObject({
      flow: z.string(),
      sourceMac: z.string().exactOptional(),
      destinationMac: z.string().exactOptional(),
      vlan: z.number().int().min(1).max(4094).exactOptional(),
      flags: z.string().exactOptional(),
      payload: z.number().int().exactOptional(),
    }),
  ]),
});
const switchPortSchema = z.strictObject({
  port: z.string().min(1),
  state: z.enum(['up', 'blocked', 'forward-to-peer']),
  peer: z.string().exactOptional(),
});
const switchExportSchema = z.strictObject({ port: z.string().min(1) });
const switchImportSchema = z.strictObject({
  port: z.string().min(1),
  offset: z.number().int().min(0),
  total: z.number().int().min(0).max(IMAGE_BYTES_MAX),
  piece: z.base64(),
});
const switchCaptureSchema = z.strictObject({
  ports: z.array(z.string()).exactOptional(),
  drops: z.boolean().exactOptional(),
  match: z.custom<NonNullable<CaptureOptions['match']>>().exactOptional(),
  snaplen: z.number().int().positive().exactOptional(),
  count: z.number().int().positive().exactOptional(),
  seconds: z.number().positive().exactOptional(),
});
const switchCaptureEndSchema = z.strictObject({ capture: z.number().int() });
const shutdownSchema = z.strictObject({ drain: z.boolean().default(false) });

export function adminMethods(daemon: Daemon): Readonly<Record<string, Method>> {
  const onVolume = (
    work: (volume: MountedVolume, onProgress: OnProgress, signal: AbortSignal) => Promise<unknown>,
  ): Method =>
    method(volumeSchema, (parameters, { onProgress, signal }) =>
      work(roleAt(daemon, parameters.mountpoint).volume, onProgress, signal),
    );

  return {
    status: { safe: true, call: () => daemon.status() },
    stats: {
      safe: true,
      call: async () => ({ atMs: daemon.clock.wallMs(), sources: daemon.metrics.sources() }),
    },
    drain: onVolume((volume, onProgress, signal) => volume.drain(onProgress, signal)),
    fsck: onVolume((volume, onProgress, signal) => volume.fsck(onProgress, signal)),
    gc: onVolume((volume, onProgress, signal) => volume.gc(onProgress, signal)),
    scrub: onVolume((volume, onProgress, signal) => volume.scrub(onProgress, signal)),
    manifest: method(manifestSchema, ({ mountpoint, expected }, { onProgress, sendItems, signal }) =>
      roleAt(daemon, mountpoint).volume.manifest(expected, sendItems, onProgress, signal),
    ),
    warmup: method(warmupSchema, (parameters, { onProgress, signal }) =>
      roleAt(daemon, parameters.mountpoint).volume.warmup(parameters.path, onProgress, signal),
    ),
    umount: method(umountSchema, ({ mountpoint, drain, lazy }, { onProgress, signal }) =>
      roleAt(daemon, mountpoint).stop({ drain, lazy, onProgress, signal }),
    ),
    'switch-apply': method(switchApplySchema, ({ document }) => switchOf(daemon).apply(document)),
    'switch-show': method(switchShowSchema, async ({ connections }) => switchOf(daemon).show(connections)),
    'switch-stats': { safe: true, call: async () => switchOf(daemon).stats() },
    'switch-trace': method(switchTraceSchema, async ({ port, packet }) =>
      switchOf(daemon).trace(port, packet),
    ),
    'switch-port': method(switchPortSchema, ({ port, state, peer }) =>
      switchOf(daemon).setPortState(port, state, peer),
    ),
    'switch-port-export': method(switchExportSchema, ({ port }, { sendItems }) =>
      switchOf(daemon).exportPort(port, sendItems),
    ),
    'switch-port-import': method(switchImportSchema, ({ port, ...piece }) =>
      switchOf(daemon).importPort(port, piece),
    ),
    'switch-capture': method(switchCaptureSchema, (options, { sendItems, signal }) =>
      switchOf(daemon).capture(options, sendItems, signal),
    ),
    'switch-capture-end': method(switchCaptureEndSchema, ({ capture }) =>
      switchOf(daemon).endCapture(capture),
    ),
    shutdown: method(shutdownSchema, async ({ drain }, { onProgress, signal }) => {
      if (drain) for (const role of daemon.volumes) await role.volume.drain(onProgress, signal);
      // Stopping waits for this very answer to leave, so it is not awaited here; the daemon reports its failure.
      void daemon.stop();
      return { stopping: true };
    }),
  };
}

function method<Schema extends z.ZodType>(
  schema: Schema,
  work: (parameters: z.output<Schema>, context: CallContext) => Promise<unknown>,
): Method {
  return {
    call(parameters, context) {
      const parsed = schema.safeParse(parameters);
      if (parsed.success) return work(parsed.data, context);
      const mistakes = parsed.error.issues.map(
        (issue) => `${issue.path.join('.') || 'parameters'}: ${issue.message}`,
      );
      return Promise.reject(new RpcError('BAD_PARAMETERS', mistakes.join('; ')));
    },
  };
}

function switchOf(daemon: Daemon): SwitchRole {
  if (daemon.switch === undefined) throw new DaemonError('NOT_MOUNTED', 'this daemon runs no switch');
  return daemon.switch;
}

function roleAt(daemon: Daemon, mountpoint: string): VolumeRole {
  const role = daemon.volumes.find((each) => each.config.mountpoint === mountpoint);
  if (role === undefined)
    throw new DaemonError('NOT_MOUNTED', `this daemon has nothing mounted on ${mountpoint}`);
  return role;
}
