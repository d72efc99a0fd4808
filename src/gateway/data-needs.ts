// Provides what a data operation lacks, so that it can run again: the file's base, a chunk's map, pages, grants.
//
//   operation ──> outcome need-* ──> provide(need) ──> operation again ── ... ──> done | error
//
// Equal needs under way are shared: a hundred readers of one missing chunk cause one download.
import type { Session } from '../access/contract.js';
import type { Caller, Stripe } from '../metadata/contract.js';
import { PAGE_SIZE } from '../metadata/contract.js';
import type { StorageNode } from '../storage/contract.js';
import type { CacheOutcome, GatewayCache } from './cache-contract.js';
import { CHUNK_BITMAP_BYTES, CHUNK_SIZE, chunksOf, PAGES_PER_CHUNK } from './chunks.js';
import { errnoName, GatewayError } from './errors.js';
import type { Grants } from './grants.js';
import type { DataNeed } from './transport.js';

/** How often one operation may find something else missing before it is an error: eviction may race with a download. */
const MAX_ROUNDS = 1000;
/** How often stripes are asked for again because their versions were replaced and dropped in between. */
const STRIPE_ATTEMPTS_MAX = 16;
/** From so many chunks on (64 MiB) it is worth asking first which of them have a stripe at all. */
const HOLE_CHUNKS_MIN = 16;

export interface DataNeedsOptions {
  readonly session: Session;
  readonly caller: Caller;
  readonly cache: GatewayCache;
  readonly grants: Grants;
  readonly storage: (node: number) => StorageNode;
  /** Resolves when the publisher has cleaned something (the dirty budget is full). */
  readonly waitForClean: () => Promise<void>;
  /** The bytes beyond the asked ones to download too. */
  readonly readAhead: (ino: number, offset: number, length: number) => number;
  /** Called before a download: the cache must not grow beyond its budget. */
  readonly makeRoom: (bytes: number) => void;
  /** Undefined while the cache has a directory; after that was removed, settles when it has another one, or can have none. */
  readonly cacheMadeAnew: () => Promise<void> | undefined;
}

export class DataNeeds {
  readonly #options: DataNeedsOptions;
  readonly #underWay = new Map<string, Promise<void>>();
  /** Maps being put together, by inode. */
  readonly #mapping = new Map<number, Set<{ isPast: boolean }>>();
  readonly counters = {
    attach: 0,
    map: 0,
    fetch: 0,
    grant: 0,
    clean: 0,
    fetchedPages: 0,
    sharedWaits: 0,
    versionsReplaced: 0,
    mapsOutrun: 0,
  };

  constructor(options: DataNeedsOptions) {
    this.#options = options;
  }

  /** Repeats `operation` until it is done, providing what it lacks. Rejects with the errno it ends with. */
  async complete(ino: number, operation: () => CacheOutcome): Promise<CacheOutcome> {
    for (let round = 0; round < MAX_ROUNDS; round += 1) {
      const outcome = operation();
      if (outcome.status === 'done') return outcome;
      if (outcome.status === 'error') {
        throw new GatewayError(errnoName(outcome.errno), `data operation on inode ${ino} failed`);
      }
      await this.provide(needOf(ino, outcome));
    }
    throw new GatewayError('EIO', `inode ${ino}: the cache never held all that one operation needs`);
  }

  async provide(need: DataNeed): Promise<void> {
    switch (need.kind) {
      case 'attach':
        return this.#shared(`attach:${need.ino}`, () => this.attach(need.ino));
      case 'map':
        return this.#intoDirectory(() => this.#loadMaps(need.ino, need.offset, need.length));
      case 'fetch':
        return this.#intoDirectory(() => this.#fetchRange(need.ino, need.offset, need.length));
      case 'grant':
        this.counters.grant += 1;
        return this.#options.grants.ensure(need.bytes);
      case 'clean':
        this.counters.clean += 1;
        return this.#options.waitForClean();
      case 'kill-privileges':
        throw new Error('kill-privileges is a metadata operation, not a need of the cache');
    }
  }

  /** Makes the cache the owner of the file's size and times. */
  async attach(ino: number): Promise<void> {
    const { session, caller, cache } = this.#options;
    if (cache.attributes(ino) !== undefined) return;
    this.counters.attach += 1;
    const { size, pages, mtime, ctime, version } = await session.namespace.getAttributes(caller, ino);
    cache.attach(ino, { size, pages, mtime, ctime, version, isNew: false });
  }

  async #shared(key: string, provide: () => Promise<void>): Promise<void> {
    let running = this.#underWay.get(key);
    if (running === undefined) {
      running = provide().finally(() => this.#underWay.delete(key));
      this.#underWay.set(key, running);
    } else {
      this.counters.sharedWaits += 1;
    }
    return running;
  }

  /**
   * Nothing of the file is evicted meanwhile: else a page could be written, published and evicted while older bytes of
   * it are still on their way, and these would be taken for the newer ones.
   */
  async #pinned(ino: number, work: () => Promise<void>): Promise<void> {
    const { cache } = this.#options;
    cache.pin(ino);
    try {
      await work();
    } finally {
      cache.unpin(ino);
    }
  }

  /** `work` makes files in the cache's directory: it waits for one, also when the directory was removed meanwhile. */
  async #intoDirectory(work: () => Promise<void>): Promise<void> {
    const { cacheMadeAnew } = this.#options;
    await cacheMadeAnew();
    try {
      await work();
    } catch (error) {
      const made = cacheMadeAnew();
      if (made === undefined) throw error;
      await made;
      await work();
    }
  }

  async #loadMaps(ino: number, offset: number, length: number): Promise<void> {
    const { first, last } = chunksOf(offset, length);
    for (const [from, count] of await this.#unlessHoles(ino, first, last + 1 - first)) {
      for (let chunk = from; chunk < from + count; chunk += 1) {
        await this.#shared(`map:${ino}:${chunk}`, () => this.#pinned(ino, () => this.#loadMap(ino, chunk)));
      }
    }
  }

  /** Tells the cache of the chunks that no stripe touches, millions of them at once, and answers the runs of the others. */
  async #unlessHoles(ino: number, first: number, count: number): Promise<Array<[number, number]>> {
    if (count < HOLE_CHUNKS_MIN) return [[first, count]];
    const { session, caller, cache } = this.#options;
    const others: Array<[number, number]> = [];
    await this.#pinned(ino, () =>
      this.#outrunning(
        ino,
        () => session.namespace.stripes(caller, ino, first * CHUNK_SIZE, count * CHUNK_SIZE),
        (stripes) => {
          let from = first;
          for (const stripe of [...stripes].sort((left, right) => left.offset - right.offset)) {
            const touched = chunksOf(stripe.offset, stripe.length);
            const begin = Math.max(touched.first, from);
            const end = Math.min(touched.last + 1, first + count);
            if (begin >= end) continue;
            if (begin > from) cache.setHoles(ino, from, begin - from);
            others.push([begin, end - begin]);
            from = end;
          }
          if (from < first + count) cache.setHoles(ino, from, first + count - from);
        },
      ),
    );
    return others;
  }

  /**
   * Called when the cache knows that a file was published: what was cut off it before that has been forgotten as cut, so a
   * map of the version before must not be believed any more.
   */
  published(ino: number): void {
    for (const map of this.#mapping.get(ino) ?? []) map.isPast = true;
  }

  async #loadMap(ino: number, chunk: number): Promise<void> {
    await this.#outrunning(
      ino,
      () => this.#presenceOf(ino, chunk),
      (presence) => this.#options.cache.setMap(ino, chunk, presence),
    );
  }

  /** What `load` says of the published file is taken only when none was published meanwhile; else it is asked again. */
  async #outrunning<T>(ino: number, load: () => Promise<T>, take: (loaded: T) => void): Promise<void> {
    for (let attempt = 1; attempt <= STRIPE_ATTEMPTS_MAX; attempt += 1) {
      const maps = this.#mapping.get(ino) ?? new Set();
      const map = { isPast: false };
      this.#mapping.set(ino, maps.add(map));
      try {
        const loaded = await load();
        if (!map.isPast) return take(loaded);
      } finally {
        maps.delete(map);
        if (maps.size === 0) this.#mapping.delete(ino);
      }
      this.counters.mapsOutrun += 1;
    }
    // The operation finds the map missing still, and asks once more.
  }

  async #presenceOf(ino: number, chunk: number): Promise<Uint8Array> {
    const { storage } = this.#options;
    this.counters.map += 1;
    const start = chunk * CHUNK_SIZE;
    const presence = new Uint8Array(CHUNK_BITMAP_BYTES);
    await this.#ofStripes(ino, start, CHUNK_SIZE, async (stripe, { pageInStripe, filePage, count }) => {
      const { id, version } = stripe;
      const bits = await storage(stripe.node).presence(id, version, pageInStripe, count);
      orBits(presence, filePage - chunk * PAGES_PER_CHUNK, bits, count);
    });
    return presence;
  }

  async #fetchRange(ino: number, offset: number, length: number): Promise<void> {
    this.#options.makeRoom(length);
    const extended = length + this.#options.readAhead(ino, offset, length);
    const { first, last } = chunksOf(offset, extended);
    const parts: Promise<void>[] = [];
    for (let chunk = first; chunk <= last; chunk += 1) {
      const start = Math.max(offset, chunk * CHUNK_SIZE);
      const end = Math.min(offset + extended, (chunk + 1) * CHUNK_SIZE);
      parts.push(
        this.#shared(`fetch:${ino}:${start}:${end - start}`, () =>
          this.#pinned(ino, () => this.#fetch(ino, start, end - start)),
        ),
      );
    }
    await Promise.all(parts);
  }

  async #fetch(ino: number, offset: number, length: number): Promise<void> {
    const { storage } = this.#options;
    this.counters.fetch += 1;
    const start = Math.floor(offset / PAGE_SIZE) * PAGE_SIZE;
    const end = Math.ceil((offset + length) / PAGE_SIZE) * PAGE_SIZE;
    await this.#ofStripes(ino, start, end - start, async (stripe, { pageInStripe, count }) => {
      this.counters.fetchedPages += count;
      await storage(stripe.node).fetch({
        stripe: stripe.id,
        version: stripe.version,
        ino,
        filePage: stripe.offset / PAGE_SIZE,
        firstPage: pageInStripe,
        count,
      });
    });
  }

  /**
   * Does `work` for every stripe of the range, as metadata has them now. A publish may replace a version, and the store
   * drop it, between the two: then it asks again. The pages that changed are in the cache by then.
   */
  async #ofStripes(
    ino: number,
    start: number,
    length: number,
    work: (stripe: Stripe, overlap: Overlap) => Promise<void>,
  ): Promise<void> {
    const { session, caller } = this.#options;
    for (let attempt = 1; ; attempt += 1) {
      try {
        for (const stripe of await session.namespace.stripes(caller, ino, start, length)) {
          await work(stripe, overlapPages(stripe, start, length));
        }
        return;
      } catch (error) {
        if ((error as { code?: string }).code !== 'ENOENT') throw error;
        if (attempt === STRIPE_ATTEMPTS_MAX) {
          throw new GatewayError('EIO', `inode ${ino}: ${(error as Error).message}`, { cause: error });
        }
        this.counters.versionsReplaced += 1;
      }
    }
  }
}

export function needOf(ino: number, outcome: CacheOutcome): DataNeed {
  const { offset, length } = outcome;
  switch (outcome.status) {
    case 'need-attach':
      return { kind: 'attach', ino };
    case 'need-map':
      return { kind: 'map', ino, offset, length };
    case 'need-fetch':
      return { kind: 'fetch', ino, offset, length };
    case 'need-grant':
      return { kind: 'grant', ino, bytes: length };
    case 'need-clean':
      return { kind: 'clean', ino };
    default:
      throw new Error(`outcome ${outcome.status} needs nothing`);
  }
}

interface Overlap {
  readonly pageInStripe: number;
  readonly filePage: number;
  readonly count: number;
}

function overlapPages(stripe: Stripe, start: number, length: number): Overlap {
  const from = Math.max(stripe.offset, start);
  const to = Math.min(stripe.offset + stripe.length, start + length);
  return {
    pageInStripe: (from - stripe.offset) / PAGE_SIZE,
    filePage: from / PAGE_SIZE,
    count: (to - from) / PAGE_SIZE,
  };
}

/** Sets bit `at + i` of `target` wherever bit i of `source` is set. Bits are little-endian within a byte. */
function orBits(target: Uint8Array, at: number, source: Uint8Array, count: number): void {
  if (at % 8 === 0) {
    for (let index = 0; index < Math.ceil(count / 8); index += 1) target[at / 8 + index]! |= source[index]!;
    return;
  }
  for (let bit = 0; bit < count; bit += 1) {
    if ((source[bit >> 3]! & (1 << (bit & 7))) === 0) continue;
    const position = at + bit;
    target[position >> 3]! |= 1 << (position & 7);
  }
}
