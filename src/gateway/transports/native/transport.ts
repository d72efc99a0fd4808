// The native transport: mounts, takes requests off the ring many at a turn, runs the operations, sends the answers.
//
//   workers ──ring──> #drain (one wake-up, many records) ──> adapters ──> FileSystemOperations
//                                                              encode into one buffer ──> session.reply
//   DataNeed records ──> DataNeedHandler ──> session.resume / session.fail
//
// READ and WRITE do not pass here at all.
import { resolve } from 'node:path';
import type { FileIoHandle } from '../../../../bindings/file-io.js';
import { FuseSession, LookOut } from '../../../../bindings/fuse.js';
import type {
  Channel,
  DataNeed,
  DataNeedHandler,
  FileSystemOperations,
  FuseTransport,
  KernelNotifications,
} from '../../transport.js';
import { UpcallContext } from './context.js';
import { adapters, type Encode } from './dispatch.js';
import { EIO, errnoOf } from './errno.js';
import { DataNeedPayload, NO_SLOT, RECORD_DATA_NEED, RECORD_ENDED, RECORD_FORGOTTEN } from './layout.js';
import { Opcode } from './opcode.js';
import { ReplyBuffer } from './reply-buffer.js';
import { UpcallRing } from './upcall-ring.js';

export type IoUring = 'off' | 'auto' | 'on';

export interface NativeMountOptions {
  readonly mountpoint: string;
  readonly operations: FileSystemOperations;
  readonly dataNeeds: DataNeedHandler;
  readonly fileIo: FileIoHandle;
  /** First column of mount(8). */
  readonly source?: string;
  /** As after `mount -o`. 'allow_other' and 'nonempty' are understood besides the flags of mount(8). */
  readonly mountOptions?: readonly string[];
  /** Worker threads; each may be inside one READ or WRITE. */
  readonly workers?: number;
  /** Requests the kernel may have in the background (read-ahead, direct asynchronous I/O). */
  readonly maxBackground?: number;
  readonly passthrough?: boolean;
  /** Requests over io_uring instead of /dev/fuse: never, if the kernel has it, or fail without it. */
  readonly ioUring?: IoUring;
  /** Requests that can be in our hands at once, for each CPU (each a megabyte of addresses). */
  readonly ioUringDepth?: number;
  /** io_uring was wanted (`auto`) and is not used. */
  readonly onChannelRefused?: (reason: string) => void;
  /** Nobody else changes the volume, until `setExclusive(false)`. */
  readonly exclusive?: boolean;
  /** With two CPUs: one may be kept from halting while requests come one after the other and that pays. Default: true. */
  readonly haltPoll?: boolean;
  /** Bounds of the native caches of attributes and of names. */
  readonly inodeCapacity?: number;
  readonly dentryCapacity?: number;
  /** Go through fusermount3 even as root. */
  readonly forceFusermount?: boolean;
  /** An operation failed with something that is no errno: a fault in our own code. */
  readonly onFault?: (error: unknown) => void;
}

const RING_BYTES = 1 << 20;
const REPLY_BYTES = 1 << 20;
/** Records of one turn, so that a flood of requests does not starve timers and sockets. */
const RECORDS_PER_TURN = 512;
/** How long a dropped inode waits for others. A full batch waits only while answers are awaited. */
const FORGOTTEN_DELAY_MS = 10;
const NO_GROUP = 0xffff_ffff;
const NO_GROUPS: readonly number[] = [];

export class NativeFuseTransport implements FuseTransport {
  readonly notifications: KernelNotifications;
  readonly ended: Promise<void>;
  readonly #session: FuseSession;
  readonly #operations: FileSystemOperations;
  readonly #dataNeeds: DataNeedHandler;
  readonly #onFault: (error: unknown) => void;
  readonly #ring = new UpcallRing(RING_BYTES);
  readonly #reply = new ReplyBuffer(REPLY_BYTES);
  /** Requests in progress by slot, for interrupts. */
  readonly #open = new Map<number, UpcallContext>();
  readonly #end: () => void;
  #turns = 0;
  /** Requests and data needs taken and not yet answered. */
  #inHand = 0;
  #forgottenTimer: NodeJS.Timeout | undefined;
  /** The event loop has turned since the session was asked to look out. */
  #freshTurn = true;
  #stopped = false;

  private constructor(session: FuseSession, options: NativeMountOptions) {
    this.#session = session;
    this.#operations = options.operations;
    this.#dataNeeds = options.dataNeeds;
    this.#onFault = options.onFault ?? (() => {});
    const { promise, resolve: end } = withResolvers();
    this.ended = promise;
    this.#end = end;
    this.notifications = {
      invalidateInode: (ino, offset, length) => session.invalidateInode(ino, offset, length),
      invalidateEntry: (parent, name) => session.invalidateEntry(parent, name),
    };
  }

  /** Rejects with one line that says what to do, and an errno name in `code`. */
  static async mount(options: NativeMountOptions): Promise<NativeFuseTransport> {
    const extra = (options.mountOptions ?? []).filter((option) => option !== 'allow_other');
    const isRoot = process.geteuid?.() === 0;
    const session = new FuseSession({
      mountpoint: resolve(options.mountpoint),
      source: options.source ?? 'penstock',
      mountOptions: extra.join(','),
      allowOther: isRoot || options.mountOptions?.includes('allow_other') === true,
      forceFusermount: options.forceFusermount ?? false,
      maxBackground: options.maxBackground ?? 64,
      passthrough: options.passthrough ?? true,
      workers: options.workers ?? 2,
      ioUring: options.ioUring ?? 'off',
      ioUringDepth: options.ioUringDepth ?? 0,
      inodeCapacity: options.inodeCapacity ?? 1 << 16,
      dentryCapacity: options.dentryCapacity ?? 1 << 16,
      exclusive: options.exclusive ?? false,
      haltPoll: options.haltPoll ?? true,
      fileIo: options.fileIo,
    });
    await session.mount();
    const transport = new NativeFuseTransport(session, options);
    session.start(transport.#ring.bytes, transport.#reply.bytes, () => transport.#turn());
    const { kind, refusal } = session.channel();
    if (kind === 'device' && options.ioUring === 'on') {
      await transport[Symbol.asyncDispose]();
      throw Object.assign(new Error(`FUSE over io_uring: ${refusal}`), { code: 'EOPNOTSUPP' });
    }
    if (refusal !== '') options.onChannelRefused?.(refusal);
    transport.#turn();
    return transport;
  }

  /** The kernel offers passthrough, and it was asked for. */
  get passthrough(): boolean {
    return this.#session.negotiated().passthrough;
  }

  /** How requests come from the kernel. */
  get channel(): Channel {
    return this.#session.channel().kind;
  }

  /** What native code cached of an inode or a name is wrong from now on; the kernel's own cache is left alone. */
  forgetInode(ino: number): void {
    this.#session.forgetInode(ino);
  }

  forgetEntry(parent: number, name: Buffer): void {
    this.#session.forgetEntry(parent, name);
  }

  setExclusive(exclusive: boolean): void {
    this.#session.setExclusive(exclusive);
  }

  stats(): Record<string, number> {
    return { ...this.#session.stats(), turns: this.#turns };
  }

  async unmount(options?: { lazy?: boolean }): Promise<void> {
    if (this.#stopped) return;
    try {
      await this.#session.unmount(options?.lazy ?? false);
    } catch (error) {
      // Somebody else was faster.
      if (this.#stopped) return;
      throw error;
    }
    if (options?.lazy !== true) await this.ended;
  }

  /** Takes the mount away whatever uses it: open files answer ENOTCONN afterwards. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#stopped) return;
    await this.#session.unmount(true).catch((error: unknown) => {
      // EINVAL: somebody else unmounted it already.
      if (this.#stopped || (error instanceof Error && 'code' in error && error.code === 'EINVAL')) return;
      throw error;
    });
    this.#stop();
  }

  #stop(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    for (const context of this.#open.values()) context.interrupt();
    this.#open.clear();
    this.#session.stop();
    this.#end();
  }

  #turn(): void {
    this.#turns += 1;
    this.#freshTurn = true;
    this.#drain();
  }

  /** One of those in hand is answered. With none left the next request is looked out for, in place of sleeping. */
  #settled(): void {
    this.#inHand -= 1;
    if (this.#inHand === 0) this.#lookOut();
  }

  #lookOut(): void {
    if (this.#stopped) return;
    for (;;) {
      const next = this.#session.lookOut(this.#freshTurn);
      this.#freshTurn = false;
      if (next === LookOut.Sleep) return;
      if (next === LookOut.Turn) {
        setImmediate(() => {
          this.#turn();
          if (this.#inHand === 0) this.#lookOut();
        });
        return;
      }
      this.#drain();
      // Otherwise it was something to be told of: as long as that is all, the look-out goes on.
      if (this.#inHand > 0 || this.#stopped) return;
    }
  }

  #drain(): void {
    if (this.#stopped) return;
    let budget = RECORDS_PER_TURN;
    while (this.#ring.next()) {
      const { kind } = this.#ring;
      if (kind === RECORD_ENDED) {
        this.#ring.release();
        this.#stop();
        return;
      }
      this.#take(kind);
      this.#ring.release();
      if (--budget === 0) {
        setImmediate(() => this.#turn());
        return;
      }
    }
  }

  #take(kind: number): void {
    const ring = this.#ring;
    if (kind === Opcode.interrupt) {
      this.#open.get(ring.slot)?.interrupt();
      return;
    }
    const { slot, ino, uid, gid, pid, group } = ring;
    if (kind === RECORD_FORGOTTEN) {
      this.#noteForgotten();
      return;
    }
    if (slot === NO_SLOT) {
      this.#tell(kind, new UpcallContext(slot, ino, uid, gid, pid, NO_GROUPS));
      return;
    }
    const groups = group === NO_GROUP ? NO_GROUPS : [group];
    const context = new UpcallContext(slot, ino, uid, gid, pid, groups);
    this.#inHand += 1;
    if (kind === RECORD_DATA_NEED) {
      this.#provide(context);
      return;
    }
    this.#open.set(slot, context);
    this.#run(kind, context).then(
      (encode) => this.#answer(slot, encode),
      (error: unknown) => this.#refuse(slot, error),
    );
  }

  /** The kernel has its answer; should the operation fail, nobody but the log can be told. */
  #tell(kind: number, context: UpcallContext): void {
    this.#run(kind, context).catch((error: unknown) => this.#errno(error));
  }

  /** The first inode since the last were taken, or a batch is full (native/fuse/held_inodes.h). */
  #noteForgotten(): void {
    if (this.#forgottenTimer === undefined)
      this.#forgottenTimer = setTimeout(() => this.#forgotten(), FORGOTTEN_DELAY_MS).unref();
    else if (this.#inHand === 0) this.#forgotten();
  }

  #forgotten(): void {
    if (this.#stopped) return;
    clearTimeout(this.#forgottenTimer);
    this.#forgottenTimer = undefined;
    this.#operations.forgotten?.(this.#session.takeForgotten()).catch((error: unknown) => this.#errno(error));
  }

  #run(kind: number, context: UpcallContext): Promise<Encode> {
    const adapter = adapters.get(kind);
    if (adapter === undefined) return Promise.reject(new Error(`operation ${kind} has no adapter`));
    try {
      return adapter(this.#operations, context, this.#ring, this.#reply);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  #answer(slot: number, encode: Encode): void {
    if (this.#stopped) return;
    this.#open.delete(slot);
    let length = 0;
    try {
      length = encode();
    } catch (error) {
      this.#onFault(error);
      this.#session.reply(slot, EIO, 0, 0, 0, false);
      this.#settled();
      return;
    }
    const { annex, lost, held } = this.#reply;
    this.#reply.forgetChange();
    this.#session.reply(slot, 0, length, annex, lost, held);
    this.#settled();
  }

  #refuse(slot: number, error: unknown): void {
    if (this.#stopped) return;
    this.#open.delete(slot);
    this.#session.reply(slot, this.#errno(error), 0, 0, 0, false);
    this.#settled();
  }

  #errno(error: unknown): number {
    if (!(error instanceof Error && 'code' in error)) this.#onFault(error);
    return errnoOf(error);
  }

  #provide(context: UpcallContext): void {
    const { slot } = context;
    this.#dataNeeds(this.#need(context.ino), context).then(
      () => {
        if (this.#stopped) return;
        this.#session.resume(slot);
        this.#settled();
      },
      (error: unknown) => {
        if (this.#stopped) return;
        this.#session.fail(slot, this.#errno(error));
        this.#settled();
      },
    );
  }

  #need(ino: number): DataNeed {
    const offset = this.#ring.u64(DataNeedPayload.offset);
    const length = this.#ring.u64(DataNeedPayload.length);
    switch (this.#ring.u32(DataNeedPayload.kind)) {
      case 1:
        return { kind: 'attach', ino };
      case 2:
        return { kind: 'map', ino, offset, length };
      case 3:
        return { kind: 'fetch', ino, offset, length };
      case 4:
        return { kind: 'grant', ino, bytes: length };
      case 6:
        return { kind: 'clean', ino };
      default:
        return { kind: 'kill-privileges', ino, setId: offset !== 0 };
    }
  }
}

function withResolvers(): { promise: Promise<void>; resolve: () => void } {
  let settle: () => void = () => {};
  const promise = new Promise<void>((done) => {
    settle = done;
  });
  return { promise, resolve: settle };
}
