// The one configuration schema: what penstock.yaml may say. Relative paths are relative to the file. A mistake is reported
// with the path of the key and what is allowed there.
//
//   log: { level: info, file: penstock.log }
//   volumes:
//     - store: file:./store
//       name: default
//       mountpoint: ./mnt
//       cache: { directory: ./cache, size: 10GiB }
//   lease:
//     store: file:./lease
//     listen: 10.0.0.1:7400
//     tls: { ca: ca.pem, certificate: agent.pem, key: agent.key }
import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { parse as parseYaml, YAMLParseError } from 'yaml';
import { z } from 'zod';
import { FSYNC_POLICIES, TRANSPORTS } from '../gateway/mount-contract.js';
import type { LeaseHostOptions } from '../lease/host.js';
import { type SelectorOptions, selectorOptions } from '../lease/selector-options.js';
import { type SwitchConfigInput, switchSchema } from '../network/config.js';
import type { SwitchOptions } from '../network/switch.js';
import { LOG_LEVELS } from '../telemetry/logger.js';
import { explainIssues } from '../telemetry/schema-issues.js';
import { DaemonError } from './errors.js';
import { shortHash } from './runtime-directory.js';
import { parseSize } from './size.js';
import {
  CACHE_BYTES_MIN,
  DEFAULT_VOLUME,
  defaultCacheBytes,
  defaultCacheDirectory,
  stateDirectory,
} from './volume-defaults.js';

const text = z.string().min(1);

const sizeSchema = z.union([z.number(), z.string()]).transform((value, context) => {
  const bytes = typeof value === 'number' ? value : parseSize(value);
  if (bytes !== undefined && Number.isSafeInteger(bytes) && bytes >= 0) return bytes;
  context.addIssue({
    code: 'custom',
    message: `expected a size such as 64MiB or 10G, got ${JSON.stringify(value)}`,
  });
  return z.NEVER;
});

const storeSchema = z
  .string()
  .regex(/^file:.+$/, { error: (issue) => `expected file:DIRECTORY, got ${JSON.stringify(issue.input)}` });

const volumeSchema = z.strictObject({
  store: storeSchema,
  name: text.default(DEFAULT_VOLUME),
  mountpoint: text,
  cache: z
    .strictObject({
      directory: text,
      size: sizeSchema.refine((bytes) => bytes >= CACHE_BYTES_MIN, 'expected at least 16MiB').optional(),
      dirty: sizeSchema.optional(),
    })
    .optional(),
  transport: z.enum(TRANSPORTS).default('native'),
  fsync: z.enum(FSYNC_POLICIES).default('local'),
  readOnly: z.boolean().default(false),
  options: z.array(text).default([]),
  /** Make the volume when the store does not have it yet. */
  format: z.boolean().default(false),
});

const addressSchema = z.string().regex(/^(unix:.+|.+:\d+)$/, {
  error: (issue) => `expected unix:PATH or HOST:PORT, got ${JSON.stringify(issue.input)}`,
});

/** Names and ranges are the selector's to check. */
const selectorSchema = z.record(z.string(), z.number()).transform((overrides, context) => {
  try {
    selectorOptions(overrides);
  } catch (error) {
    context.addIssue({ code: 'custom', message: (error as Error).message });
  }
  return overrides as Partial<SelectorOptions>;
});

const leaseSchema = z.strictObject({
  name: z
    .string()
    .regex(/^[A-Za-z0-9_-]{1,64}$/, 'expected letters, digits, - and _')
    .optional(),
  store: storeSchema.optional(),
  listen: addressSchema.optional(),
  /** What producers and consumers are told, when that is not where it listens. */
  advertise: addressSchema.optional(),
  tls: z.strictObject({ ca: text, certificate: text, key: text }).optional(),
  /** The agent that keeps what all agreed on; absent: this one does. */
  coordinator: addressSchema.optional(),
  memberTtlMs: z.number().min(100).optional(),
  forgetAfterMs: z.number().min(100).optional(),
  selector: selectorSchema.optional(),
  services: z.record(text, selectorSchema).optional(),
});

const switchOptionsSchema = z.strictObject({
  workers: z.number().int().min(1).max(64).optional(),
  idle: z.enum(['adaptive', 'spin', 'block', 'nap']).optional(),
  spinShare: z.number().min(0).max(1).optional(),
  connections: z.number().int().min(1024).optional(),
  ageSeconds: z.number().int().min(1).optional(),
});
const SWITCH_OPTIONS = Object.keys(switchOptionsSchema.shape);

/** What `penstock switch apply` takes, and beside it what only the start can set. */
const switchRoleSchema = z.strictObject({ ...switchOptionsSchema.shape, ...switchSchema.shape });

const configSchema = z
  .strictObject({
    log: z.strictObject({ level: z.enum(LOG_LEVELS).default('info'), file: text.optional() }).optional(),
    volumes: z.array(volumeSchema).min(1, 'expected at least one volume').optional(),
    lease: leaseSchema.optional(),
    switch: switchRoleSchema.optional(),
  })
  .refine((config) => (config.volumes ?? config.lease ?? config.switch) !== undefined, {
    path: ['volumes'],
    message: 'missing, expected at least one of volumes, lease and switch',
  });

export interface VolumeConfig {
  readonly store: string;
  readonly name: string;
  readonly mountpoint: string;
  readonly cacheDirectory: string;
  readonly cacheBytes: number;
  readonly dirtyBytes?: number;
  readonly transport: (typeof TRANSPORTS)[number];
  readonly fsync: (typeof FSYNC_POLICIES)[number];
  readonly readOnly: boolean;
  readonly mountOptions: readonly string[];
  readonly format: boolean;
  /** Make the mountpoint when it is absent. */
  readonly createMountpoint: boolean;
}

/** `listen` absent: the socket of this user's runtime directory. */
export interface LeaseConfig extends Omit<LeaseHostOptions, 'clock' | 'random' | 'logger' | 'metrics'> {
  readonly name: string;
}

export interface SwitchRoleConfig {
  readonly options: SwitchOptions;
  readonly document: SwitchConfigInput;
}

export interface DaemonConfig {
  readonly log: { readonly level: (typeof LOG_LEVELS)[number]; readonly file?: string };
  readonly volumes: readonly VolumeConfig[];
  readonly lease?: LeaseConfig;
  readonly switch?: SwitchRoleConfig;
}

/** What `penstock up` runs without a file: everything below `directory`. */
export function embeddedDefault(directory: string): DaemonConfig {
  const cache = { directory: './.penstock/cache' };
  const volume = { store: 'file:./.penstock/store', mountpoint: './mnt', cache, format: true };
  const config = parseConfig({ volumes: [volume] }, directory, 'the embedded default');
  return { ...config, volumes: config.volumes.map((each) => ({ ...each, createMountpoint: true })) };
}

export function loadConfig(path: string): DaemonConfig {
  let content: string;
  try {
    content = readFileSync(path, 'utf8');
  } catch (error) {
    throw new DaemonError('CONFIG', `cannot read ${path}: ${(error as Error).message}`, { cause: error });
  }
  try {
    return parseConfig(parseYaml(content) as unknown, dirname(resolve(path)), path);
  } catch (error) {
    if (!(error instanceof YAMLParseError)) throw error;
    const line = error.message.split('\n')[0]!.replace(/:$/, '');
    throw new DaemonError('CONFIG', `${path} is not YAML: ${line}`, { cause: error });
  }
}

/** `origin` names the document in messages; relative paths are resolved against `directory`. */
export function parseConfig(document: unknown, directory: string, origin: string): DaemonConfig {
  const parsed = configSchema.safeParse(document);
  if (!parsed.success) {
    throw new DaemonError('CONFIG', `${origin}: ${explainIssues(configSchema, parsed.error.issues)}`);
  }
  const { log, volumes = [], lease } = parsed.data;
  const resolved = volumes.map((volume) => resolveVolume(volume, directory));
  requireApart(resolved, origin);
  return {
    log: {
      level: log?.level ?? 'info',
      ...(log?.file === undefined ? {} : { file: resolve(directory, log.file) }),
    },
    volumes: resolved,
    ...(lease === undefined ? {} : { lease: resolveLease(lease, directory) }),
    ...(parsed.data.switch === undefined ? {} : { switch: splitSwitch(document) }),
  };
}

/**
 * A daemon that looks into a mount of its own waits for itself, and not even SIGKILL ends that. So nothing that it opens lies in
 * one; the names are compared as they are written.
 */
function requireApart(volumes: readonly VolumeConfig[], origin: string): void {
  for (const [index, { mountpoint, store, cacheDirectory }] of volumes.entries()) {
    const paths = { mountpoint, store: store.slice('file:'.length), 'cache.directory': cacheDirectory };
    for (const [key, path] of Object.entries(paths)) {
      const around = volumes.find((other, at) => {
        if (key === 'mountpoint' && at === index) return false;
        return path === other.mountpoint || path.startsWith(`${other.mountpoint}/`);
      });
      if (around === undefined) continue;
      const problem = `volumes[${index}].${key}: ${path} lies in the mountpoint ${around.mountpoint} of this daemon`;
      throw new DaemonError('CONFIG', `${origin}: ${problem}; choose a place outside`);
    }
  }
}

/** The document as it was written: Switch.apply reads it, and `switch show` tells it. */
function splitSwitch(document: unknown): SwitchRoleConfig {
  const entries = Object.entries((document as { readonly switch: object }).switch);
  const chosen = (isOption: boolean) =>
    Object.fromEntries(entries.filter(([key]) => SWITCH_OPTIONS.includes(key) === isOption));
  return { options: chosen(true), document: chosen(false) };
}

function resolveLease(lease: z.infer<typeof leaseSchema>, directory: string): LeaseConfig {
  const { name, store, listen, advertise, tls, coordinator, ...rest } = lease;
  const place =
    store === undefined ? defaultLeaseDirectory() : resolve(directory, store.slice('file:'.length));
  const address = (given: string) =>
    given.startsWith('unix:') ? `unix:${resolve(directory, given.slice('unix:'.length))}` : given;
  const files = tls && {
    ca: resolve(directory, tls.ca),
    certificate: resolve(directory, tls.certificate),
    key: resolve(directory, tls.key),
  };
  return {
    name:
      name ??
      `${hostname()
        .replace(/[^A-Za-z0-9-]/g, '-')
        .slice(0, 40)}-${shortHash(place)}`,
    store: `file:${place}`,
    ...(listen === undefined ? {} : { listen: address(listen) }),
    ...(advertise === undefined ? {} : { advertise: address(advertise) }),
    ...(files === undefined ? {} : { tls: files }),
    ...(coordinator === undefined ? {} : { coordinator: address(coordinator) }),
    ...(Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== undefined)) as Omit<
      LeaseConfig,
      'name' | 'store'
    >),
  };
}

/** In a place that survives a reboot: what was leased exclusively stays leased. */
function defaultLeaseDirectory(environment: NodeJS.ProcessEnv = process.env): string {
  return join(stateDirectory(environment), 'lease');
}

function resolveVolume(volume: z.infer<typeof volumeSchema>, directory: string): VolumeConfig {
  const storeDirectory = resolve(directory, volume.store.slice('file:'.length));
  const cacheDirectory =
    volume.cache === undefined
      ? defaultCacheDirectory(`file:${storeDirectory}`, volume.name)
      : resolve(directory, volume.cache.directory);
  return {
    store: `file:${storeDirectory}`,
    name: volume.name,
    mountpoint: resolve(directory, volume.mountpoint),
    cacheDirectory,
    cacheBytes: volume.cache?.size ?? defaultCacheBytes(cacheDirectory),
    ...(volume.cache?.dirty === undefined ? {} : { dirtyBytes: volume.cache.dirty }),
    transport: volume.transport,
    fsync: volume.fsync,
    readOnly: volume.readOnly,
    mountOptions: volume.options,
    format: volume.format,
    createMountpoint: false,
  };
}
