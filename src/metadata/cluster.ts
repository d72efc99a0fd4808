// The metadata nodes of one store: each is one engine. What the pieces that run transactions share.
import { randomBytes } from 'node:crypto';
import type { KvEngine } from '../kv/engine.js';
import { type Now, wallTime } from './clock.js';
import { sessionKey, type VolumeKeys } from './keys.js';
import { rebalance } from './quota.js';
import type { Fence } from './session-fence.js';
import type { ShardMap } from './shard-map.js';
import type { QuotaShort } from './usage.js';

export interface MetadataNode {
  readonly index: number;
  readonly engine: KvEngine;
}

export interface ClusterOptions {
  readonly now?: Now;
  /** 0 <= random() < 1, for pauses. */
  readonly random?: () => number;
  readonly txid?: () => Buffer;
  /** Milliseconds after which an undecided transaction of an unknown coordinator is aborted by whoever meets it. */
  readonly intentTimeoutMs?: number;
  /** Called between every two steps of a transaction across nodes; a rejection stops it there (tests crash so). */
  readonly onStep?: (step: string) => Promise<void>;
}

const SESSION_KEYS_MAX = 4096;

export class Cluster {
  readonly now: Now;
  readonly random: () => number;
  readonly txid: () => Buffer;
  readonly intentTimeoutMs: number;
  readonly onStep: ((step: string) => Promise<void>) | undefined;
  /** Transactions that this process coordinates now, by txid in hex. */
  readonly active = new Map<string, Promise<void>>();
  /** Committed transactions whose decision record may go once every participant is synced. */
  readonly finished: Array<{ readonly txid: Buffer; readonly coordinator: number }> = [];
  /** What happened more often than not at all is worth a look. */
  readonly counters = {
    transactions: 0,
    /** Ran across nodes. */
    spread: 0,
    /** Began again because a record changed meanwhile, by engine conflict or across nodes. */
    restarts: 0,
    /** Met an unsettled transaction and settled it or waited for it. */
    intentsMet: 0,
    /** A node's share of the quota was too small: moved from others, or refused. */
    rebalanced: 0,
    quotaRefusals: 0,
    fenced: 0,
    /** Background work that failed and will be tried again. */
    failedSweeps: 0,
    failedReservations: 0,
  };
  #rebalancing: Promise<void> = Promise.resolve();
  readonly #sessionKeys = new Map<number, Buffer>();

  constructor(
    readonly nodes: readonly MetadataNode[],
    readonly map: ShardMap,
    options: ClusterOptions = {},
  ) {
    this.now = options.now ?? wallTime();
    this.random = options.random ?? Math.random;
    this.txid = options.txid ?? (() => randomBytes(16));
    this.intentTimeoutMs = options.intentTimeoutMs ?? 2000;
    this.onStep = options.onStep;
  }

  sessionKey(session: number): Buffer {
    let key = this.#sessionKeys.get(session);
    if (key === undefined) {
      if (this.#sessionKeys.size >= SESSION_KEYS_MAX) this.#sessionKeys.clear();
      key = sessionKey(session);
      this.#sessionKeys.set(session, key);
    }
    return key;
  }

  nowMs(): number {
    const { sec, nsec } = this.now();
    return sec * 1000 + nsec / 1e6;
  }

  async sync(): Promise<void> {
    if (this.nodes.length === 1) return this.nodes[0]!.engine.sync();
    await Promise.all(this.nodes.map(({ engine }) => engine.sync()));
  }

  /**
   * Moves free share of the quota to a node that is short of it. False: no node can spare enough. One at a time: while
   * share is on its way it is free nowhere, and another search would find too little.
   */
  rebalance(keys: VolumeKeys, short: QuotaShort, fence: Fence): Promise<boolean> {
    const turn = this.#rebalancing.then(() => rebalance(this, keys, short, fence));
    this.#rebalancing = turn.then(
      () => {},
      () => {},
    );
    return turn;
  }
}
