// Page grants: a write is acknowledged only against quota and store space that was reserved before it, so that an
// upload can never meet EDQUOT or ENOSPC.
//
//   metadata quota ── reservePages ──> reserved ── grant ──> native cache ── hole page written ──> consumed
//                                         ^                                                         │
//                                         └──────────── publish turns consumed pages into used ─────┘
//
// One request refills for everybody who waits; a refill asks for what is needed and a batch beyond, then for less. A
// page that is truncated before it was published, or replaces a published one, leaves its grant consumed but unused;
// whenever nothing is dirty the books are balanced again.
import type { Caller, Namespace } from '../metadata/contract.js';
import { PAGE_SIZE } from '../metadata/contract.js';
import { GatewayError } from './errors.js';

const REFILL_PAGES = 16_384;

export interface GrantTarget {
  grant(pages: number): void;
  grantRemaining(): number;
  takeBackGrant(pages: number): number;
}

export interface GrantOptions {
  readonly namespace: Pick<Namespace, 'reservePages' | 'returnReservation'>;
  readonly caller: Caller;
  readonly target: GrantTarget;
  /** Pages the storage nodes can still take. */
  readonly storePagesFree: () => number;
  /** True when no file is dirty or being published: then every page that is reserved is unused. */
  readonly isClean: () => boolean;
  /** Publishes everything; used before a quota is declared full. */
  readonly drain: () => Promise<void>;
}

export class Grants {
  readonly #options: GrantOptions;
  #refill: Promise<void> | undefined;
  /** Pages that metadata holds for this session and that are not used pages yet. */
  #reserved = 0;

  constructor(options: GrantOptions) {
    this.#options = options;
  }

  /** Grants at least `bytes` worth of pages to the cache. EDQUOT: the volume's quota is full. ENOSPC: the store is. */
  async ensure(bytes: number): Promise<void> {
    const needed = Math.ceil(bytes / PAGE_SIZE) + 1;
    while (this.#options.target.grantRemaining() < needed) {
      this.#refill ??= this.#fill(needed).finally(() => {
        this.#refill = undefined;
      });
      await this.#refill;
    }
  }

  /** A publish turned `pages` reserved pages into used ones (or, negative, freed used ones). */
  published(pages: number): void {
    this.#reserved -= Math.min(Math.max(pages, 0), this.#reserved);
    this.balance();
  }

  /** Reserves quota for pages that were written before this session began and are still to be published. */
  async adopt(pages: number): Promise<void> {
    if (pages > 0) this.#reserved += await this.#options.namespace.reservePages(this.#options.caller, pages);
  }

  balance(): void {
    const { target, isClean } = this.#options;
    if (!isClean()) return;
    const surplus = this.#reserved - target.grantRemaining();
    if (surplus > 0) target.grant(surplus);
    else if (surplus < 0) target.takeBackGrant(-surplus);
  }

  /** Gives unused grants back to the volume's quota, for another session or at unmount. */
  async returnAll(): Promise<void> {
    const { target, namespace, caller } = this.#options;
    const pages = Math.min(target.takeBackGrant(target.grantRemaining()), this.#reserved);
    this.#reserved -= pages;
    if (pages > 0) await namespace.returnReservation(caller, pages);
  }

  async #fill(needed: number): Promise<void> {
    if (await this.#reserve(needed)) return;
    // What was overwritten or cut off before it was published may hold reservations that nobody needs.
    await this.#options.drain();
    this.balance();
    if (this.#options.target.grantRemaining() >= needed || (await this.#reserve(needed))) return;
    if (this.#storePagesFree() < needed) {
      throw new GatewayError('ENOSPC', 'the store has no space left for this write');
    }
    throw new GatewayError('EDQUOT', 'the byte quota of the volume is used up');
  }

  /** Free in the store, less what has been promised already. */
  #storePagesFree(): number {
    return this.#options.storePagesFree() - this.#reserved;
  }

  async #reserve(needed: number): Promise<boolean> {
    const { target, namespace, caller } = this.#options;
    const free = this.#storePagesFree();
    if (free < needed) return false;
    const wanted = Math.min(Math.max(needed, REFILL_PAGES), free);
    for (const pages of [wanted, needed]) {
      const reserved = await namespace.reservePages(caller, pages);
      this.#reserved += reserved;
      if (reserved > 0) target.grant(reserved);
      if (target.grantRemaining() >= needed) return true;
    }
    return false;
  }
}
