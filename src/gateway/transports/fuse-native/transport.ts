// The fuse-native transport: libfuse 2 through the npm package, for hosts where the native transport cannot be used, and as
// something to compare with. It is correct within limits that test/fuse-native shows one by one.
//
// Requests run on libfuse's threads, which wait until this thread has answered: a synchronous call from this process into
// its own mount never returns. Attributes and names are not cached by the kernel, because the package cannot take them
// back when another session changes them.
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { isMainThread } from 'node:worker_threads';
import type Fuse from 'fuse-native';
import type { FileData, FileSystemOperations, FuseTransport, KernelNotifications } from '../../transport.js';
import { HandleTable } from './handles.js';
import { type Counters, fuseNativeOperations } from './operations.js';
import { FuseNativeUnavailable, loadFuseNative } from './package.js';

export interface FuseNativeOptions {
  readonly mountpoint: string;
  readonly operations: FileSystemOperations;
  readonly data: FileData;
  /** Shown as the device in the table of mounts. */
  readonly name?: string;
  /** As in `mount -o`. */
  readonly mountOptions?: readonly string[];
}

/** libfuse tells nobody that a mount was taken away, so the table of mounts is read this often. */
const WATCH_EVERY_MS = 1000;

export class FuseNativeTransport implements FuseTransport {
  readonly notifications: KernelNotifications = { invalidateInode: () => {}, invalidateEntry: () => {} };
  readonly ended: Promise<void>;
  readonly #fuse: Fuse;
  readonly #mountpoint: string;
  readonly #handles: HandleTable;
  readonly #counters: Counters;
  readonly #watch: NodeJS.Timeout;
  #end!: () => void;
  #unmounting: Promise<void> | undefined;

  private constructor(fuse: Fuse, mountpoint: string, handles: HandleTable, counters: Counters) {
    this.#fuse = fuse;
    this.#mountpoint = mountpoint;
    this.#handles = handles;
    this.#counters = counters;
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
    this.#watch = setInterval(() => void this.#noticeEnd(), WATCH_EVERY_MS).unref();
  }

  static async mount(options: FuseNativeOptions): Promise<FuseNativeTransport> {
    if (!isMainThread) {
      throw new FuseNativeUnavailable('the fuse-native transport works on the main thread only');
    }
    const Package = await loadFuseNative();
    const { mountpoint, name = 'penstock', mountOptions = [] } = options;
    if (/[,\\]/.test(name)) throw new RangeError(`not a device name for libfuse: ${name}`);
    const handles = new HandleTable();
    const counters: Counters = { requests: 0, failures: 0, namesHidden: 0 };
    const operations = fuseNativeOperations(options.operations, options.data, handles, counters);
    const fuse = new Package(mountpoint, operations, {
      timeout: false,
      defaultPermissions: true,
      entryTimeout: '0',
      attrTimeout: '0',
      // The package has no names for these, but passes options on as they are.
      fsname: [name, 'use_ino', 'big_writes', ...mountOptions].join(','),
      subtype: 'penstock',
    });
    await settled((done) => fuse.mount(done));
    return new FuseNativeTransport(fuse, mountpoint, handles, counters);
  }

  async unmount(options: { lazy?: boolean } = {}): Promise<void> {
    this.#unmounting ??= this.#unmount(options.lazy ?? false).finally(() => {
      this.#unmounting = undefined;
    });
    await this.#unmounting;
  }

  stats(): Record<string, number> {
    return { ...this.#counters, openFiles: this.#handles.size };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.unmount({ lazy: true });
  }

  async #unmount(lazy: boolean): Promise<void> {
    if (await this.#isMounted()) await takeAway(this.#mountpoint, lazy);
    await this.#release();
  }

  async #noticeEnd(): Promise<void> {
    if (!(await this.#isMounted())) await this.#release();
  }

  async #release(): Promise<void> {
    clearInterval(this.#watch);
    await settled((done) => this.#fuse.unmount(done));
    this.#end();
  }

  async #isMounted(): Promise<boolean> {
    const escaped = this.#mountpoint.replace(/[ \t\n\\]/g, (character) => {
      return `\\${character.charCodeAt(0).toString(8).padStart(3, '0')}`;
    });
    const table = await readFile('/proc/self/mountinfo', 'utf8');
    return table
      .split('\n')
      .some((line) => line.split(' ')[4] === escaped && line.includes(' - fuse.penstock '));
  }
}

function settled(start: (done: (error: Error | null) => void) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    start((error) => (error ? reject(error) : resolve()));
  });
}

/** umount(8) as root, else fusermount of either version. */
async function takeAway(mountpoint: string, lazy: boolean): Promise<void> {
  const [command, ...flags] =
    process.getuid!() === 0 ? ['umount', ...(lazy ? ['-l'] : [])] : ['fusermount3', lazy ? '-uz' : '-u'];
  await new Promise<void>((resolve, reject) => {
    execFile(command!, [...flags, '--', mountpoint], (error, _stdout, stderr) => {
      if (error === null) return resolve();
      const code = /busy/.test(stderr) ? 'EBUSY' : 'EIO';
      reject(Object.assign(new Error(stderr.trim() || error.message), { code }));
    });
  });
}
