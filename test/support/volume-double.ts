// A volume provider without FUSE, for tests of the daemon and the command line: it remembers what it was told and does
// what the test says.

import type { ContentEntry } from '../../src/access/content-manifest.js';
import type {
  FormatOptions,
  MountedVolume,
  MountOptions,
  OnProgress,
  VolumeProvider,
  VolumeStats,
  VolumeStatus,
} from '../../src/gateway/mount-contract.js';
import { errorWith } from './errors.js';

export class VolumeDouble implements MountedVolume {
  readonly mountpoint: string;
  readonly calls: string[] = [];
  readonly ended: Promise<void>;
  dirtyBytes = 0;
  busy = false;
  problems: string[] = [];
  readBytes = 0;
  contents: ContentEntry[] = [];
  end!: () => void;
  fail!: (error: Error) => void;

  constructor(readonly options: MountOptions) {
    this.mountpoint = options.mountpoint;
    this.ended = new Promise((resolve, reject) => {
      this.end = resolve;
      this.fail = reject;
    });
  }

  async status(): Promise<VolumeStatus> {
    const {
      store,
      volume,
      mountpoint,
      transport,
      fsync,
      readOnly = false,
      cacheDirectory,
      cacheBytes,
    } = this.options;
    const { dirtyBytes } = this;
    const cache = {
      directory: cacheDirectory,
      bytesMax: cacheBytes,
      bytesUsed: dirtyBytes,
      dirtyBytesMax: cacheBytes,
    };
    return {
      ...{ store, volume, mountpoint, transport, fsync, readOnly, state: 'mounted' },
      cache: { ...cache, dirtyBytes, dirtyFiles: dirtyBytes > 0 ? 1 : 0 },
      mountMs: { cache: 3, kernel: 0 },
    };
  }

  stats(): VolumeStats {
    return {
      readOperations: this.readBytes / 4096,
      readBytes: this.readBytes,
      writeOperations: 0,
      writeBytes: 0,
      metadataOperations: 7,
      fetchedBytes: 0,
      publishedBytes: 0,
      dirtyBytes: this.dirtyBytes,
      evictions: 3,
    };
  }

  async drain(
    onProgress: (progress: { done: number; total: number; unit: 'bytes' }) => void,
    signal: AbortSignal,
  ) {
    this.calls.push('drain');
    const publishedBytes = this.dirtyBytes;
    while (this.dirtyBytes > 0) {
      signal.throwIfAborted();
      onProgress({ done: publishedBytes - this.dirtyBytes, total: publishedBytes, unit: 'bytes' });
      await new Promise((resolve) => setTimeout(resolve, 5));
      this.dirtyBytes -= Math.min(this.dirtyBytes, 4096);
    }
    return { publishedBytes, publishedFiles: 1 };
  }

  async warmup(path: string) {
    this.calls.push(`warmup ${path}`);
    return { files: 2, fetchedBytes: 8192 };
  }

  async fsck() {
    this.calls.push('fsck');
    return { inodesChecked: 10, stripesChecked: 4, problems: this.problems.map((message) => ({ message })) };
  }

  async gc() {
    this.calls.push('gc');
    return { versionsDropped: 2, bytesFreed: 4096 };
  }

  async scrub() {
    this.calls.push('scrub');
    const damaged = this.problems.map((_, page) => ({ stripe: 5, version: 1, page }));
    return { pagesChecked: 100, damaged };
  }

  async manifest(
    expected: string | undefined,
    take: (entries: readonly ContentEntry[]) => Promise<void>,
    onProgress: OnProgress,
    signal: AbortSignal,
  ) {
    this.calls.push(`manifest${expected === undefined ? '' : ` ${expected}`}`);
    for (const [done, entry] of this.contents.entries()) {
      signal.throwIfAborted();
      onProgress({ done, total: this.contents.length, unit: 'bytes' });
      await take([entry]);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    return { identity: 'store/volume', files: this.contents.length, bytes: 3 << 20, hashingMs: 1000 };
  }

  async unmount({ drain, lazy = false }: { drain: boolean; lazy?: boolean }): Promise<void> {
    this.calls.push(`unmount${drain ? ' drain' : ''}${lazy ? ' lazy' : ''}`);
    if (this.busy && !lazy)
      throw errorWith('EBUSY', `${this.mountpoint} is in use; close what is open there`);
    this.end();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.end();
  }
}

export class ProviderDouble implements VolumeProvider {
  readonly formatted: FormatOptions[] = [];
  readonly volumes: VolumeDouble[] = [];
  /** What the next mounts fail with. */
  failure: Error | undefined;
  existing = new Set<string>();

  readonly mount = async (options: MountOptions): Promise<VolumeDouble> => {
    if (this.failure !== undefined) throw this.failure;
    const volume = new VolumeDouble(options);
    this.volumes.push(volume);
    return volume;
  };

  readonly formatStore = async (options: FormatOptions): Promise<{ created: boolean }> => {
    const key = `${options.store} ${options.volume}`;
    if (this.existing.has(key) && options.ifAbsent !== true)
      throw errorWith(
        'EEXIST',
        `${options.store} has a volume "${options.volume}" already; choose another --name`,
      );
    const created = !this.existing.has(key);
    this.existing.add(key);
    this.formatted.push(options);
    return { created };
  };
}
