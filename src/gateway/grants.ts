// Page grants: a write is acknowledged only against quota and store space that was reserved before it, so that an
// upload can never meet EDQUOT or ENOSPC.
//
//   metadata quota ── reservePages ──> reserved ── grant ──> native cache ── hole page written ──> consumed
//                                         ^                                                         │
//                                         └──────────── publish turns consumed pages into used ─────┘
//
// One request refills for everybody who waits; a refill asks for what is needed and a batch beyond, then for less.
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
  /** Pages the storage nodes can still take, beyond what was granted and not yet uploaded. */
  readonly storePagesFree: () => number;
}

export class Grants {
  readonly #options: GrantOptions;
  #refill: Promise<void> | undefined;

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

  /** Gives unused grants back to the volume's quota, for another session or at unmount. */
  async returnAll(): Promise<void> {
    const { target, namespace, caller } = this.#options;
    const pages = target.takeBackGrant(target.grantRemaining());
    if (pages > 0) await namespace.returnReservation(caller, pages);
  }

  async #fill(needed: number): Promise<void> {
    const { target, namespace, caller, storePagesFree } = this.#options;
    const free = storePagesFree();
    if (free < needed) throw new GatewayError('ENOSPC', 'the store has no space left for this write');
    const wanted = Math.min(Math.max(needed, REFILL_PAGES), free);
    for (const pages of [wanted, needed]) {
      const reserved = await namespace.reservePages(caller, pages);
      if (reserved > 0) target.grant(reserved);
      if (target.grantRemaining() >= needed) return;
    }
    throw new GatewayError('EDQUOT', 'the byte quota of the volume is used up');
  }
}
