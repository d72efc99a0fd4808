// The lock service of one volume: the lock table, and the records that let a restarted service know it again.
//
// The table decides; a record is written after the decision and before the answer. Writes about one inode follow the order
// of decisions, so that a lock handed from one session to another is never on record for both.
//
// Locks of a *co-resident* session (its client is in the process of its access node and of this service) are not written:
// they cannot outlive the process, because their client cannot; the next process opens another session, and no other
// session can have been given a conflicting lock meanwhile that the dead client might still act upon. So a crash
// breaks no exclusion, and a lock costs no transaction. The locks of every other session are written through.
//
// If writing a record fails, the request fails with EIO and the table keeps the more exclusive state: a lock that its client
// believes not to have harms nobody and goes with the owner's FLUSH, a lock that two clients believe to have does.
import type { KvEngine } from '../kv/engine.js';
import { MetadataError } from './contract.js';
import { shardOf, type VolumeKeys } from './keys.js';
import type { ConflictingLock, LockRequest, LockSession, UnlockRequest } from './lock-contract.js';
import { decodeLockRecord, encodeLockRecord, type LockRecord, lockRecordRest } from './lock-record.js';
import { type Holding, LockTable } from './lock-table.js';

/** What a session holds on an inode: it needs no round trip to unlock what it does not hold. */
export type LockIndicator = 'none' | 'shared' | 'exclusive';

export interface LockTest {
  readonly conflict: ConflictingLock | undefined;
  /** Nobody holds or awaits a lock of the inode; the service announces the first that will (`onOccupied`). */
  readonly vacant: boolean;
}

export interface LockServiceOptions {
  readonly keys: VolumeKeys;
  readonly engines: readonly KvEngine[];
  engineOf(shard: number): KvEngine;
  readonly sessions: {
    isLive(session: number, epoch: number): boolean;
    isCoresident(session: number): boolean;
  };
}

/** Inodes announced as vacant at one time; the oldest is withdrawn beyond. */
const VACANT_MAX = 65_536;

export class LockService {
  readonly #options: LockServiceOptions;
  readonly #table = new LockTable();
  readonly #vacant = new Set<number>();
  readonly #occupied: Array<(ino: number) => void | Promise<void>> = [];
  /** The last record write of each inode that has one under way. */
  readonly #writes = new Map<number, Promise<void>>();
  #recordWrites = 0;

  constructor(options: LockServiceOptions) {
    this.#options = options;
  }

  /** `listener` hears of an inode before a lock of it is acknowledged, if a `test` had answered that it is vacant. */
  onOccupied(listener: (ino: number) => void | Promise<void>): void {
    this.#occupied.push(listener);
  }

  async test(session: LockSession, request: LockRequest): Promise<LockTest> {
    this.#checkLive(session);
    const conflict = this.#table.test(session.session, request);
    const vacant = this.#table.isVacant(request.ino);
    if (vacant) {
      this.#vacant.add(request.ino);
      if (this.#vacant.size > VACANT_MAX) await this.#announce(this.#vacant.values().next().value!);
    }
    return { conflict, vacant };
  }

  /** Answers what the session then holds. EAGAIN, or with `wait` EINTR, EDEADLK; ENOLCK; ESTALE. */
  async acquire(session: LockSession, request: LockRequest, wait?: AbortSignal): Promise<LockIndicator> {
    this.#checkLive(session);
    checkRange(request);
    if (wait === undefined) {
      if (!this.#table.tryAcquire(session.session, request)) {
        // A refused flock(2) conversion has lost the old lock.
        if (request.flavour === 'flock') await this.#record(session, request.ino);
        throw new MetadataError('EAGAIN', `the lock of inode ${request.ino} conflicts with another`);
      }
    } else {
      const granted = this.#table.acquire(session.session, request, wait);
      if (request.flavour === 'flock') await Promise.all([granted, this.#record(session, request.ino)]);
      else await granted;
    }
    if (this.#vacant.has(request.ino)) await this.#announce(request.ino);
    return this.#record(session, request.ino);
  }

  async release(session: LockSession, request: UnlockRequest): Promise<LockIndicator> {
    this.#checkLive(session);
    checkRange(request);
    this.#table.release(session.session, request);
    return this.#record(session, request.ino);
  }

  async releaseOwner(session: LockSession, ino: number, owner: bigint): Promise<LockIndicator> {
    this.#checkLive(session);
    this.#table.releaseOwner(session.session, ino, owner);
    return this.#record(session, ino);
  }

  async releaseHandle(session: LockSession, ino: number, handle: bigint): Promise<LockIndicator> {
    this.#checkLive(session);
    this.#table.releaseHandle(session.session, ino, handle);
    return this.#record(session, ino);
  }

  /** The session has been fenced: its waits end with ESTALE, its locks go. Idempotent. */
  async endSession(session: number, reason: string): Promise<void> {
    await Promise.all([...this.#writes.values()]);
    for (const engine of this.#options.engines) {
      await engine.transact(async (txn) => {
        const found = await txn.scan(this.#options.keys.sessionLocks(session));
        for (const { key } of found) txn.delete(key);
      });
    }
    this.#table.endSession(session, reason);
  }

  /** After a restart: takes back the locks of sessions that still live, forgets the others'. */
  async recover(sessions: ReadonlyArray<{ readonly id: number; readonly epoch: number }>): Promise<number> {
    let locks = 0;
    for (const { id, epoch } of sessions) {
      for (const engine of this.#options.engines) {
        const found = await engine.transact((txn) => txn.scan(this.#options.keys.sessionLocks(id)));
        for (const { key, value } of found) {
          const record = decodeLockRecord(key.subarray(-17), value);
          if (record.epoch !== epoch) await engine.transact((txn) => txn.delete(key));
          else locks += this.#restore(id, record);
        }
      }
    }
    return locks;
  }

  stats(): Record<string, number> {
    return { ...this.#table.stats(), vacantAnnounced: this.#vacant.size, recordWrites: this.#recordWrites };
  }

  #restore(session: number, { ino, flavour, identity, pid, handles, ranges }: LockRecord): number {
    for (const handle of handles) {
      const owner = identity; // For flock the handle is the identity, and the table does not look at the owner.
      this.#table.restore(session, { ino, flavour, owner, handle, pid }, ranges);
    }
    return ranges.length;
  }

  async #announce(ino: number): Promise<void> {
    for (const listener of this.#occupied) await listener(ino);
    this.#vacant.delete(ino);
  }

  #checkLive({ session, epoch }: LockSession): void {
    if (this.#options.sessions.isLive(session, epoch)) return;
    throw new MetadataError('ESTALE', `session ${session} of epoch ${epoch} has ended`);
  }

  /** Brings the session's records of the inode in line with the table, then answers what it holds. */
  async #record(session: LockSession, ino: number): Promise<LockIndicator> {
    if (!this.#options.sessions.isCoresident(session.session)) {
      const write = (this.#writes.get(ino) ?? Promise.resolve())
        .catch(() => {})
        .then(() => this.#write(session, ino));
      this.#writes.set(ino, write);
      try {
        await write;
      } catch (cause) {
        throw new MetadataError(
          'EIO',
          `the lock of inode ${ino} cannot be recorded: ${(cause as Error).message}`,
        );
      } finally {
        if (this.#writes.get(ino) === write) this.#writes.delete(ino);
      }
    }
    return indicatorOf(this.#table.holdings(session.session, ino));
  }

  async #write({ session, epoch }: LockSession, ino: number): Promise<void> {
    const { keys } = this.#options;
    const inodePrefix = Buffer.allocUnsafe(8);
    inodePrefix.writeBigUInt64BE(BigInt(ino));
    const first = keys.sessionLock(session, inodePrefix);
    const last = keys.sessionLock(session, Buffer.concat([inodePrefix, Buffer.from([0xff])]));
    this.#recordWrites++;
    await this.#options.engineOf(shardOf(ino)).transact(async (txn) => {
      const stale = new Map<string, Buffer>();
      for (const { key } of await txn.scan({ start: first, end: last }))
        stale.set(key.toString('latin1'), key);
      for (const held of this.#table.holdings(session, ino)) {
        const { flavour, identity } = held.holder;
        const key = keys.sessionLock(session, lockRecordRest({ ino, flavour, identity }));
        const { pid, ranges } = held;
        txn.put(
          key,
          encodeLockRecord({ ino, flavour, identity, epoch, pid, handles: [...held.handles], ranges }),
        );
        stale.delete(key.toString('latin1'));
      }
      for (const key of stale.values()) txn.delete(key);
    });
  }
}

function checkRange({ range }: { readonly range: { readonly start: number; readonly end: number } }): void {
  if (
    Number.isSafeInteger(range.start) &&
    Number.isSafeInteger(range.end) &&
    range.start >= 0 &&
    range.start <= range.end
  )
    return;
  throw new MetadataError('EINVAL', `not a byte range: ${range.start}..${range.end}`);
}

function indicatorOf(holdings: readonly Holding[]): LockIndicator {
  let indicator: LockIndicator = 'none';
  for (const { ranges } of holdings) {
    for (const { kind } of ranges) {
      if (kind === 'write') return 'exclusive';
      indicator = 'shared';
    }
  }
  return indicator;
}
