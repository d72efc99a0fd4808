// The sessions of the service: a client's life, with an identifier taken from the place of its record, an epoch that is
// never reused for that place, and a lease.
//
//   open ─> Live ──(superseded | expired | closed)──> Ending ──> Ended, slot free
//                                                       │
//             1. no longer live in memory: locks and renewals are refused
//             2. record becomes Ending on every node, and durable: no mutation of that epoch commits any more
//             3. listeners: the access node tells the client, locks are dropped, orphans and reservations returned
//             4. record becomes Ended, the client's name and the slot are free
//
// A crash between two steps leaves Ending, and the next start or the next client of that name goes on from there: every
// step may run again. Nothing is given to anybody else before step 3, and no old write can land after step 2.
//
// Leases are kept in memory on a monotonic clock. While the service was not there to hear renewals (a restart, a stopped
// process, a paused virtual machine) nobody's lease runs out: it counts again from when the service is back.
import { createHash } from 'node:crypto';
import type { KvEngine, KvTransaction } from '../kv/engine.js';
import type { Clock } from '../telemetry/clock.js';
import { MetadataError, SHARD_COUNT } from './contract.js';
import { accessKey, accessRange, readU64, sessionKey, sessionOfKey, sessionRange, writeU64 } from './keys.js';
import { fenceEpoch, SessionState } from './session-fence.js';
import {
  decodeSessionRecord,
  EPOCH_MAX,
  encodeSessionRecord,
  type SessionIdentity,
  type SessionRecord,
  sessionId,
  sessionShard,
  sessionSlot,
} from './session-record.js';

export const DEFAULT_LEASE_MS = 60_000;
const CLIENT_NAME_BYTES_MAX = 255;
const OPEN_ATTEMPTS_MAX = 16;

/** The engines of the nodes, and which of them holds a shard. */
export interface SessionNodes {
  readonly engines: readonly KvEngine[];
  engineOf(shard: number): KvEngine;
}

export type EndReason = 'superseded' | 'expired' | 'closed';

/** Must be idempotent: it runs again after a crash or a failure. */
export type SessionEndListener = (session: SessionIdentity, reason: EndReason) => Promise<void>;

export interface OpenedSession {
  readonly identity: SessionIdentity;
  readonly leaseMs: number;
}

export interface SessionStatus extends SessionRecord {
  readonly leaseRemainingMs: number;
}

interface Lease {
  readonly record: SessionRecord;
  expiresAtMs: number;
}

export class SessionStore implements AsyncDisposable {
  readonly #nodes: SessionNodes;
  readonly #clock: Clock;
  readonly #leaseMs: number;
  readonly #sweepEveryMs: number;
  readonly #leases = new Map<number, Lease>();
  readonly #opening = new Map<string, Promise<void>>();
  readonly #ending = new Map<string, Promise<void>>();
  readonly #unfinished = new Map<string, { record: SessionRecord; reason: EndReason }>();
  readonly #listeners: SessionEndListener[] = [];
  readonly #ended: Record<EndReason, number> = { superseded: 0, expired: 0, closed: 0 };
  #opened = 0;
  #renewals = 0;
  #failedEnds = 0;
  #sweptAtMs: number;
  #timer: NodeJS.Timeout | undefined;

  constructor(nodes: SessionNodes, options: { clock: Clock; leaseMs?: number }) {
    this.#nodes = nodes;
    this.#clock = options.clock;
    this.#leaseMs = options.leaseMs ?? DEFAULT_LEASE_MS;
    this.#sweepEveryMs = this.#leaseMs / 4;
    this.#sweptAtMs = this.#clock.monotonicMs();
  }

  /** Listeners run in the order they were added, one after another. */
  onEnded(listener: SessionEndListener): void {
    this.#listeners.push(listener);
  }

  /** Call once, after the listeners are there and before the first `open`. Live sessions get a whole lease; half-ended ones end. */
  async recover(): Promise<SessionRecord[]> {
    const halfEnded: SessionRecord[] = [];
    for (const engine of this.#nodes.engines) {
      const found = await engine.transact((txn) => txn.scan(sessionRange()));
      for (const { key, value } of found) {
        const id = sessionOfKey(key);
        if (this.#nodes.engineOf(sessionShard(id)) !== engine) continue;
        const record = decodeSessionRecord(id, value);
        await this.#copyFence(record);
        if (record.state === SessionState.Live) this.#grant(record);
        else if (record.state === SessionState.Ending) halfEnded.push(record);
      }
    }
    for (const record of halfEnded) await this.#end(record, 'expired');
    return [...this.#leases.values()].map((lease) => lease.record);
  }

  /** Expires sessions from now on, without keeping the process alive. */
  startSweeping(): void {
    this.#timer ??= setInterval(() => void this.sweep(), this.#sweepEveryMs).unref();
  }

  /** A session of this client on this volume. An earlier one of the same name has ended when this resolves. */
  async open(volume: string, clientName: string, options?: { coresident?: boolean }): Promise<OpenedSession> {
    const nameBytes = Buffer.byteLength(clientName);
    if (nameBytes < 1 || nameBytes > CLIENT_NAME_BYTES_MAX) {
      throw new MetadataError(
        'EINVAL',
        `a client name has 1 to ${CLIENT_NAME_BYTES_MAX} bytes, not ${nameBytes}`,
      );
    }
    // One after another for each name: a session is granted before the next one supersedes it.
    const name = `${volume}\0${clientName}`;
    const turn = (this.#opening.get(name) ?? Promise.resolve()).then(() =>
      this.#open(volume, clientName, options),
    );
    const settled = turn.then(
      () => {},
      () => {},
    );
    this.#opening.set(name, settled);
    try {
      return await turn;
    } finally {
      if (this.#opening.get(name) === settled) this.#opening.delete(name);
    }
  }

  async #open(
    volume: string,
    clientName: string,
    options?: { coresident?: boolean },
  ): Promise<OpenedSession> {
    const shard = homeShard(volume, clientName);
    for (let attempt = 0; attempt < OPEN_ATTEMPTS_MAX; attempt++) {
      const coresident = options?.coresident ?? false;
      const claim = await this.#nodes
        .engineOf(shard)
        .transact((txn) => claimSlot(txn, shard, { volume, clientName, coresident }));
      if ('occupant' in claim) {
        await this.#end(claim.occupant, 'superseded');
        continue;
      }
      await this.#copyFence(claim.record);
      await this.#sync();
      this.#grant(claim.record);
      this.#opened++;
      return { identity: identityOf(claim.record), leaseMs: this.#leaseMs };
    }
    throw new MetadataError('EAGAIN', `other clients keep taking the name "${clientName}"`);
  }

  /** Answers the new lease in milliseconds from now; ESTALE when the session has ended. */
  async renew(id: number, epoch: number): Promise<number> {
    const lease = this.#leases.get(id);
    if (lease === undefined || lease.record.epoch !== epoch) {
      throw new MetadataError('ESTALE', `session ${id} of epoch ${epoch} has ended`);
    }
    lease.expiresAtMs = this.#clock.monotonicMs() + this.#leaseMs;
    this.#renewals++;
    return this.#leaseMs;
  }

  /** Idempotent: closing what has ended does nothing. */
  async close(id: number, epoch: number): Promise<void> {
    const lease = this.#leases.get(id);
    if (lease?.record.epoch === epoch) return this.#end(lease.record, 'closed');
    await this.#ending.get(lifeOf({ id, epoch }));
  }

  isLive(id: number, epoch: number): boolean {
    return this.#leases.get(id)?.record.epoch === epoch;
  }

  isCoresident(id: number): boolean {
    return this.#leases.get(id)?.record.coresident ?? false;
  }

  /** Ends sessions whose lease ran out, and goes on with ends that failed half-way. Answers how many it ended. */
  async sweep(): Promise<number> {
    const nowMs = this.#clock.monotonicMs();
    const absent = nowMs - this.#sweptAtMs > 2 * this.#sweepEveryMs;
    this.#sweptAtMs = nowMs;
    if (absent) {
      for (const lease of this.#leases.values()) lease.expiresAtMs = nowMs + this.#leaseMs;
    }
    const ends = [...this.#unfinished.values()].map(({ record, reason }) => this.#end(record, reason));
    for (const lease of this.#leases.values()) {
      if (lease.expiresAtMs <= nowMs) ends.push(this.#end(lease.record, 'expired'));
    }
    const settled = await Promise.allSettled(ends);
    return settled.filter((end) => end.status === 'fulfilled').length;
  }

  list(): SessionStatus[] {
    const nowMs = this.#clock.monotonicMs();
    return [...this.#leases.values()].map((lease) => ({
      ...lease.record,
      leaseRemainingMs: Math.max(0, lease.expiresAtMs - nowMs),
    }));
  }

  stats(): Record<string, number> {
    return {
      live: this.#leases.size,
      opened: this.#opened,
      renewals: this.#renewals,
      superseded: this.#ended.superseded,
      expired: this.#ended.expired,
      closed: this.#ended.closed,
      failedEnds: this.#failedEnds,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    await Promise.allSettled(this.#ending.values());
  }

  #grant(record: SessionRecord): void {
    this.#leases.set(record.id, { record, expiresAtMs: this.#clock.monotonicMs() + this.#leaseMs });
  }

  #end(record: SessionRecord, reason: EndReason): Promise<void> {
    const life = lifeOf(record);
    let ending = this.#ending.get(life);
    if (ending === undefined) {
      if (this.#leases.get(record.id)?.record.epoch === record.epoch) this.#leases.delete(record.id);
      this.#unfinished.set(life, { record, reason });
      ending = this.#endOnce(record, reason).finally(() => this.#ending.delete(life));
      this.#ending.set(life, ending);
    }
    return ending;
  }

  async #endOnce(record: SessionRecord, reason: EndReason): Promise<void> {
    try {
      await this.#putEverywhere({ ...record, state: SessionState.Ending });
      await this.#sync();
      for (const listener of this.#listeners) await listener(identityOf(record), reason);
      await this.#copyFence({ ...record, state: SessionState.Ended });
      await this.#nodes.engineOf(sessionShard(record.id)).transact((txn) => freeSlot(txn, record));
    } catch (error) {
      this.#failedEnds++;
      throw error;
    }
    this.#unfinished.delete(lifeOf(record));
    this.#ended[reason]++;
  }

  async #putEverywhere(record: SessionRecord): Promise<void> {
    const home = this.#nodes.engineOf(sessionShard(record.id));
    await home.transact((txn) => putFence(txn, record));
    await this.#copyFence(record);
  }

  /** The fence as it is at home, on every other node. */
  async #copyFence(record: SessionRecord): Promise<void> {
    const home = this.#nodes.engineOf(sessionShard(record.id));
    for (const engine of this.#nodes.engines) {
      if (engine !== home) await engine.transact((txn) => putFence(txn, record));
    }
  }

  async #sync(): Promise<void> {
    await Promise.all(this.#nodes.engines.map((engine) => engine.sync()));
  }
}

const identityOf = ({ id, epoch, volume, clientName }: SessionRecord): SessionIdentity => ({
  id,
  epoch,
  volume,
  clientName,
});

const lifeOf = ({ id, epoch }: { id: number; epoch: number }): string => `${id}:${epoch}`;

/** A client name always hashes to the same shard, so that its name and its record change in one transaction. */
function homeShard(volume: string, clientName: string): number {
  return createHash('sha256').update(`${volume}\0${clientName}`).digest().readUInt32BE(0) % SHARD_COUNT;
}

// Keys below accessKey: 'C' shard volume NUL name -> session id; 'F' shard slot -> (free); 'T' shard -> next slot.
function shardKey(letter: 'C' | 'F' | 'T', shard: number, rest: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.from(`${letter}..`);
  head.writeUInt16BE(shard, 1);
  return Buffer.concat([head, rest]);
}

const clientKey = (shard: number, volume: string, clientName: string): Buffer => {
  const digest = createHash('sha256').update(`${volume}\0${clientName}`).digest();
  return accessKey(shardKey('C', shard, digest));
};

function u64(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(8);
  writeU64(bytes, value, 0);
  return bytes;
}

type Claim = { readonly record: SessionRecord } | { readonly occupant: SessionRecord };

async function claimSlot(
  txn: KvTransaction,
  shard: number,
  client: { volume: string; clientName: string; coresident: boolean },
): Promise<Claim> {
  const nameKey = clientKey(shard, client.volume, client.clientName);
  const known = await txn.get(nameKey);
  if (known !== undefined) {
    const id = readU64(known, 0);
    return { occupant: decodeSessionRecord(id, (await txn.get(sessionKey(id)))!) };
  }
  const id = sessionId(shard, await takeSlot(txn, shard));
  const previous = await txn.get(sessionKey(id));
  const epoch = previous === undefined ? 1 : fenceEpoch(previous) + 1;
  const record: SessionRecord = { id, epoch, state: SessionState.Live, ...client };
  txn.put(sessionKey(id), encodeSessionRecord(record));
  txn.put(nameKey, u64(id));
  return { record };
}

async function takeSlot(txn: KvTransaction, shard: number): Promise<number> {
  const [free] = await txn.range({ ...accessRange(shardKey('F', shard)), limit: 1 });
  if (free !== undefined) {
    txn.delete(free.key);
    return readU64(free.value, 0);
  }
  const nextKey = accessKey(shardKey('T', shard));
  const next = await txn.get(nextKey);
  const slot = next === undefined ? 1 : readU64(next, 0);
  txn.put(nextKey, u64(slot + 1));
  return slot;
}

/** Never turns a fence back: not to an earlier epoch, not to an earlier state of the same one. */
async function putFence(txn: KvTransaction, record: SessionRecord): Promise<void> {
  const key = sessionKey(record.id);
  const present = await txn.get(key);
  if (present !== undefined) {
    const { epoch, state } = decodeSessionRecord(record.id, present);
    if (epoch > record.epoch || (epoch === record.epoch && state >= record.state)) return;
  }
  txn.put(key, encodeSessionRecord(record));
}

async function freeSlot(txn: KvTransaction, record: SessionRecord): Promise<void> {
  const shard = sessionShard(record.id);
  const nameKey = clientKey(shard, record.volume, record.clientName);
  const known = await txn.get(nameKey);
  const present = decodeSessionRecord(record.id, (await txn.get(sessionKey(record.id)))!);
  if (present.epoch !== record.epoch || present.state === SessionState.Ended) return;
  txn.put(sessionKey(record.id), encodeSessionRecord({ ...record, state: SessionState.Ended }));
  if (known !== undefined && readU64(known, 0) === record.id) txn.delete(nameKey);
  if (record.epoch === EPOCH_MAX) return; // This slot is used up.
  const slot = u64(sessionSlot(record.id));
  txn.put(accessKey(shardKey('F', shard, slot)), slot);
}
