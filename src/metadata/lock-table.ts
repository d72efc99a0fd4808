// The locks of one volume as the service knows them now: who holds which ranges of which inode, and who waits.
//
//   inode ──┬── posix  holder ─ ranges     a holder is (session, owner) for fcntl(2) locks,
//           ├── flock  holder ─ one range  (session, handle) for flock(2); the two never conflict
//           └── queue  waiter, waiter, ... in order of arrival
//
// What FUSE sends (fs/fuse/file.c, Linux 4.x to 6.x), and so how each flavour ends:
//   fcntl  owner = hash(files_struct); FLUSH carries the same owner at every close of the process: `releaseOwner`.
//   OFD    the same request, but owner = hash(struct file) and no flag that says so; FLUSH names the closing process,
//          which is somebody else, and RELEASE carries no owner. So a holder remembers the handles it locked through
//          and goes with the last of them: `releaseHandle`. A process's own locks never get that far (every close
//          before RELEASE sent a FLUSH), so the rule cannot take a lock from the living.
//   flock  FUSE_LK_FLOCK is set, owner = hash(struct file); it goes with the handle.
//
// Order of waiting. A waiter whose owner holds no lock at all is served in order of arrival: it passes no earlier
// waiter that it conflicts with, so a stream of readers cannot starve a writer. One that holds something may pass:
// queueing it behind another could close a cycle that no real lock is part of. A request that does not wait looks
// at held locks only, as in the kernel.
//
// Deadlock (POSIX flavour only, EDEADLK): looked for when an owner starts to wait, and when a lock is granted to an owner
// that also waits elsewhere (threads). An edge is "waits for a lock that is held".
import { MetadataError } from './contract.js';
import type { ConflictingLock, LockRange, LockRequest, UnlockRequest } from './lock-contract.js';
import { firstConflict, type HeldRange, setRange } from './lock-ranges.js';

/** Ranges one holder may have on one inode, and waiters one inode may have: ENOLCK beyond. */
export const RANGES_PER_HOLDER_MAX = 65_536;
export const WAITERS_PER_INODE_MAX = 65_536;

const WHOLE_FILE: LockRange = { start: 0, end: Number.MAX_SAFE_INTEGER };

export interface Holder {
  readonly session: number;
  readonly flavour: 'posix' | 'flock';
  /** Lock owner (posix) or handle (flock). */
  readonly identity: bigint;
  readonly inodes: Map<number, Holding>;
  readonly waiting: Set<Waiter>;
}

/** What a holder has on one inode. */
export interface Holding {
  readonly holder: Holder;
  ranges: HeldRange[];
  /** The handles these locks were taken through. */
  readonly handles: Set<bigint>;
  /** As F_GETLK shows it: the process that locked last. */
  pid: number;
}

interface Waiter {
  readonly holder: Holder;
  readonly request: LockRequest;
  readonly grant: () => void;
  readonly refuse: (error: Error) => void;
}

interface InodeLocks {
  readonly posix: Map<Holder, Holding>;
  readonly flock: Map<Holder, Holding>;
  queue: Waiter[];
}

export class LockTable {
  readonly #inodes = new Map<number, InodeLocks>();
  readonly #sessions = new Map<number, Map<string, Holder>>();
  #granted = 0;
  #waiting = 0;
  #deadlocks = 0;
  #interrupted = 0;

  test(session: number, request: LockRequest): ConflictingLock | undefined {
    const inode = this.#inodes.get(request.ino);
    if (inode === undefined) return undefined;
    const own = this.#findHolder(session, request);
    let first: ConflictingLock | undefined;
    for (const holding of inode[request.flavour].values()) {
      if (holding.holder === own) continue;
      const range = firstConflict(holding.ranges, request.range.start, request.range.end, request.kind);
      if (range !== undefined && (first === undefined || range.start < first.range.start)) {
        first = { kind: range.kind, range: { start: range.start, end: range.end }, pid: holding.pid };
      }
    }
    return first;
  }

  /** Grants at once (true), or says that the request conflicts (false) and changes nothing, but for flock: see below. */
  tryAcquire(session: number, request: LockRequest): boolean {
    const holder = this.#holder(session, request);
    if (request.flavour === 'flock') this.#dropForConversion(holder, request);
    if (this.#heldAgainst(holder, request).next().done !== true) {
      this.#forgetIfIdle(holder);
      return false;
    }
    this.#install(holder, request);
    return true;
  }

  /** Resolves when granted; queues without a time limit. EINTR when `signal` aborts, EDEADLK on a cycle, ENOLCK when full. */
  acquire(session: number, request: LockRequest, signal: AbortSignal): Promise<void> {
    const holder = this.#holder(session, request);
    if (signal.aborted) return this.#refuseIdle(holder, 'EINTR', 'the lock request was interrupted');
    if (request.flavour === 'flock') this.#dropForConversion(holder, request);
    if (!this.#mustWait(holder, request, this.#inodes.get(request.ino)?.queue.length ?? 0)) {
      this.#install(holder, request);
      return Promise.resolve();
    }
    const inode = this.#inode(request.ino);
    if (inode.queue.length >= WAITERS_PER_INODE_MAX) {
      return this.#refuseIdle(
        holder,
        'ENOLCK',
        `${inode.queue.length} requests wait for locks of inode ${request.ino}`,
      );
    }
    if (request.flavour === 'posix' && this.#closesCycle(holder, request)) {
      this.#deadlocks++;
      return this.#refuseIdle(holder, 'EDEADLK', 'the lock would wait for its own owner');
    }
    return new Promise((resolve, reject) => {
      const interrupt = () => {
        this.#interrupted++;
        this.#unqueue(waiter);
        reject(new MetadataError('EINTR', 'the wait for a lock was interrupted'));
        this.#forgetIfIdle(holder);
        this.#serve(request.ino);
      };
      const settle = () => signal.removeEventListener('abort', interrupt);
      const waiter: Waiter = {
        holder,
        request,
        grant: () => {
          settle();
          resolve();
        },
        refuse: (error) => {
          settle();
          reject(error);
        },
      };
      signal.addEventListener('abort', interrupt, { once: true });
      inode.queue.push(waiter);
      holder.waiting.add(waiter);
      this.#waiting++;
    });
  }

  release(session: number, request: UnlockRequest): void {
    const holding = this.#findHolder(session, request)?.inodes.get(request.ino);
    if (holding === undefined) return;
    const { start, end } = request.range;
    holding.ranges =
      request.flavour === 'flock' ? [] : bounded(setRange(holding.ranges, start, end, undefined));
    this.#afterShrink(request.ino, holding);
  }

  /** Every POSIX lock of the owner on the inode. */
  releaseOwner(session: number, ino: number, owner: bigint): void {
    const holding = this.#sessions.get(session)?.get(holderKey('posix', owner))?.inodes.get(ino);
    if (holding === undefined) return;
    holding.ranges = [];
    this.#afterShrink(ino, holding);
  }

  /** The handle's flock, and POSIX-flavoured locks that no other handle remains for (OFD). */
  releaseHandle(session: number, ino: number, handle: bigint): void {
    for (const holding of this.holdings(session, ino)) {
      if (!holding.handles.delete(handle) || holding.handles.size > 0) continue;
      holding.ranges = [];
      this.#afterShrink(ino, holding);
    }
  }

  /** Refuses the session's waiters with ESTALE and drops its locks; answers the inodes it held locks of. */
  endSession(session: number, reason: string): number[] {
    const inodes = new Set<number>();
    for (const holder of [...(this.#sessions.get(session)?.values() ?? [])]) {
      for (const waiter of [...holder.waiting]) {
        this.#refuse(waiter, 'ESTALE', reason);
        this.#serve(waiter.request.ino);
      }
      for (const [ino, holding] of [...holder.inodes]) {
        inodes.add(ino);
        holding.ranges = [];
        this.#afterShrink(ino, holding);
      }
      this.#forgetIfIdle(holder);
    }
    return [...inodes];
  }

  /** Puts back what was known before a restart. */
  restore(session: number, request: Omit<LockRequest, 'kind' | 'range'>, ranges: readonly HeldRange[]): void {
    const holder = this.#holder(session, request);
    for (const range of ranges) this.#install(holder, { ...request, kind: range.kind, range });
  }

  /** What the session holds on the inode, in both flavours. */
  holdings(session: number, ino: number): Holding[] {
    const inode = this.#inodes.get(ino);
    if (inode === undefined) return [];
    return [...inode.posix.values(), ...inode.flock.values()].filter(
      (held) => held.holder.session === session,
    );
  }

  /** Nobody holds a lock of the inode, nobody waits for one. */
  isVacant(ino: number): boolean {
    return !this.#inodes.has(ino);
  }

  stats(): Record<string, number> {
    return {
      inodes: this.#inodes.size,
      waiting: this.#waiting,
      granted: this.#granted,
      deadlocks: this.#deadlocks,
      interrupted: this.#interrupted,
    };
  }

  // A conversion of a flock(2) lock is not atomic in Linux: the old lock goes first, and stays gone if the new one is refused.
  #dropForConversion(holder: Holder, request: LockRequest): void {
    const holding = holder.inodes.get(request.ino);
    if (holding === undefined || holding.ranges[0]?.kind === request.kind) return;
    holding.ranges = [];
    this.#afterShrink(request.ino, holding, true);
  }

  #install(holder: Holder, request: LockRequest): void {
    this.#place(holder, request);
    this.#serve(request.ino); // A downgrade lets readers in.
    this.#grantedWhileWaiting(holder, request.ino);
  }

  /** Answers true if the holder had locks of the inode before: the grant may then have freed something. */
  #place(holder: Holder, request: LockRequest): boolean {
    const inode = this.#inode(request.ino);
    const present = inode[request.flavour].get(holder);
    const { start, end } = request.flavour === 'flock' ? WHOLE_FILE : request.range;
    const ranges = bounded(setRange(present?.ranges ?? [], start, end, request.kind));
    const holding = present ?? { holder, ranges, handles: new Set(), pid: request.pid };
    holding.ranges = ranges;
    holding.handles.add(request.handle);
    holding.pid = request.pid;
    inode[request.flavour].set(holder, holding);
    holder.inodes.set(request.ino, holding);
    this.#granted++;
    return present !== undefined;
  }

  // The owner now holds something, so its waits for other inodes may pass others (see "Order of waiting"), and those
  // who wait for what it just got may have become part of a cycle.
  #grantedWhileWaiting(holder: Holder, ino: number): void {
    if (holder.waiting.size === 0) return;
    let refused = false;
    for (const waiter of [...(this.#inodes.get(ino)?.queue ?? [])]) {
      if (waiter.request.flavour !== 'posix' || !waiter.holder.waiting.has(waiter)) continue;
      if (!this.#closesCycle(waiter.holder, waiter.request)) continue;
      this.#deadlocks++;
      this.#refuse(waiter, 'EDEADLK', 'the lock would wait for its own owner');
      refused = true;
    }
    if (refused) this.#serve(ino); // Whoever stood behind it may go now.
    for (const waiter of [...holder.waiting]) this.#serve(waiter.request.ino);
  }

  // Grants whatever can be granted, in order of arrival. A grant only takes chances away from those behind it, unless it
  // converted what its holder had, or its holder waits elsewhere too: then the queue is looked at from its head again.
  #serve(ino: number): void {
    const inode = this.#inodes.get(ino);
    for (let index = 0; inode !== undefined && index < inode.queue.length; ) {
      const waiter = inode.queue[index]!;
      if (this.#mustWait(waiter.holder, waiter.request, index)) {
        index++;
        continue;
      }
      this.#unqueue(waiter);
      try {
        if (this.#place(waiter.holder, waiter.request) || waiter.holder.waiting.size > 0) index = 0;
        waiter.grant();
      } catch (error) {
        waiter.refuse(error as Error); // ENOLCK: its list of ranges is full.
      }
      this.#grantedWhileWaiting(waiter.holder, ino);
    }
    this.#forgetInode(ino);
  }

  #mustWait(holder: Holder, request: LockRequest, ahead: number): boolean {
    if (this.#heldAgainst(holder, request).next().done !== true) return true;
    if (holder.inodes.size > 0) return false;
    const queue = this.#inodes.get(request.ino)?.queue ?? [];
    for (let index = 0; index < ahead; index++) {
      const earlier = queue[index]!;
      if (earlier.holder !== holder && conflicts(earlier.request, request)) return true;
    }
    return false;
  }

  *#heldAgainst(holder: Holder, request: LockRequest): Generator<Holder> {
    const inode = this.#inodes.get(request.ino);
    if (inode === undefined) return;
    for (const holding of inode[request.flavour].values()) {
      if (holding.holder === holder) continue;
      if (firstConflict(holding.ranges, request.range.start, request.range.end, request.kind))
        yield holding.holder;
    }
  }

  /** True if `start`, by waiting for `request`, waits for itself. */
  #closesCycle(start: Holder, request: LockRequest): boolean {
    const seen = new Set<Holder>();
    const pending: Array<[Holder, LockRequest]> = [[start, request]];
    for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
      for (const blocker of this.#heldAgainst(next[0], next[1])) {
        if (blocker === start) return true;
        if (seen.has(blocker)) continue;
        seen.add(blocker);
        for (const further of blocker.waiting) pending.push([blocker, further.request]);
      }
    }
    return false;
  }

  #afterShrink(ino: number, holding: Holding, keepHolder = false): void {
    if (holding.ranges.length === 0) {
      this.#inodes.get(ino)?.[holding.holder.flavour].delete(holding.holder);
      holding.holder.inodes.delete(ino);
    }
    this.#serve(ino);
    if (!keepHolder) this.#forgetIfIdle(holding.holder);
  }

  #unqueue(waiter: Waiter): void {
    const inode = this.#inodes.get(waiter.request.ino)!;
    inode.queue.splice(inode.queue.indexOf(waiter), 1);
    waiter.holder.waiting.delete(waiter);
    this.#waiting--;
  }

  #refuse(waiter: Waiter, code: string, message: string): void {
    this.#unqueue(waiter);
    waiter.refuse(new MetadataError(code, message));
    this.#forgetIfIdle(waiter.holder);
  }

  #refuseIdle(holder: Holder, code: string, message: string): Promise<never> {
    this.#forgetIfIdle(holder);
    return Promise.reject(new MetadataError(code, message));
  }

  #inode(ino: number): InodeLocks {
    let inode = this.#inodes.get(ino);
    if (inode === undefined) {
      inode = { posix: new Map(), flock: new Map(), queue: [] };
      this.#inodes.set(ino, inode);
    }
    return inode;
  }

  #forgetInode(ino: number): void {
    const inode = this.#inodes.get(ino);
    if (inode && inode.posix.size + inode.flock.size + inode.queue.length === 0) this.#inodes.delete(ino);
  }

  #findHolder(session: number, request: UnlockRequest): Holder | undefined {
    const identity = request.flavour === 'posix' ? request.owner : request.handle;
    return this.#sessions.get(session)?.get(holderKey(request.flavour, identity));
  }

  #holder(session: number, request: Pick<LockRequest, 'flavour' | 'owner' | 'handle'>): Holder {
    let holders = this.#sessions.get(session);
    if (holders === undefined) {
      holders = new Map();
      this.#sessions.set(session, holders);
    }
    const identity = request.flavour === 'posix' ? request.owner : request.handle;
    const key = holderKey(request.flavour, identity);
    let holder = holders.get(key);
    if (holder === undefined) {
      holder = { session, flavour: request.flavour, identity, inodes: new Map(), waiting: new Set() };
      holders.set(key, holder);
    }
    return holder;
  }

  #forgetIfIdle(holder: Holder): void {
    if (holder.inodes.size + holder.waiting.size > 0) return;
    const holders = this.#sessions.get(holder.session);
    holders?.delete(holderKey(holder.flavour, holder.identity));
    if (holders?.size === 0) this.#sessions.delete(holder.session);
  }
}

function bounded(ranges: HeldRange[]): HeldRange[] {
  if (ranges.length <= RANGES_PER_HOLDER_MAX) return ranges;
  throw new MetadataError('ENOLCK', `one owner locks at most ${RANGES_PER_HOLDER_MAX} ranges of a file`);
}

function holderKey(flavour: 'posix' | 'flock', identity: bigint): string {
  return `${flavour === 'posix' ? 'p' : 'f'}${identity}`;
}

function conflicts(first: LockRequest, second: LockRequest): boolean {
  if (first.flavour !== second.flavour) return false;
  if (first.kind === 'read' && second.kind === 'read') return false;
  return first.range.start <= second.range.end && second.range.start <= first.range.end;
}
