// `mount()` of the library: one volume in the process of the script, every setting but store and mountpoint optional. Unlike
// `penstock mount` there is no daemon and no admin socket; the object is the control.
import { resolve } from 'node:path';
import type { MountedVolume, MountOptions } from '../gateway/mount-contract.js';
import { canonicalMountpoint, prepareMountpoint } from '../gateway/mountpoint.js';
import { systemClock } from '../telemetry/clock.js';
import { silentLogger } from '../telemetry/logger.js';
import { DEFAULT_VOLUME, defaultCacheBytes, defaultCacheDirectory } from './volume-defaults.js';
import { volumeProvider } from './volume-provider.js';

/** Paths may be relative to the current directory. Defaults are those of `penstock mount`; nothing is logged. */
export type MountVolumeOptions = Pick<MountOptions, 'store' | 'mountpoint'> & Partial<MountOptions>;

/** Rejects with an errno name in `code`: ENOENT for no such store, volume or directory, EBUSY when something has it, ... */
export async function mountVolume(options: MountVolumeOptions): Promise<MountedVolume> {
  const volume = options.volume ?? DEFAULT_VOLUME;
  const store = absoluteStore(options.store);
  const cacheDirectory = resolve(options.cacheDirectory ?? defaultCacheDirectory(store, volume));
  const mountpoint = canonicalMountpoint(resolve(options.mountpoint));
  await prepareMountpoint(mountpoint, { create: false });
  return volumeProvider.mount({
    transport: 'native',
    fsync: 'local',
    mountOptions: [],
    logger: silentLogger,
    clock: systemClock,
    ...options,
    cacheBytes: options.cacheBytes ?? defaultCacheBytes(cacheDirectory),
    store,
    volume,
    cacheDirectory,
    mountpoint,
  });
}

function absoluteStore(store: string): string {
  return store.startsWith('file:') ? `file:${resolve(store.slice('file:'.length))}` : store;
}
