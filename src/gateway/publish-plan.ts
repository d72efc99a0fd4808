// Turns one dirty file's page runs into instructions for the storage nodes and the stripes metadata will know.
//
//   base stripes:   [ A ][ A' ][    B    ]          limit: where the file was cut since its last publish
//   cut at limit:   [ A ][ A' ][ B |x x x x         B keeps the pages before the limit; stripes beyond it are removed
//   writes:            ##  ####      ##   ###       fall into a kept stripe, or into a new one that the policy sizes
//
// Pure: identifiers of new stripes and versions are assigned afterwards, all of a batch from one allocation.
import type { Stripe } from '../metadata/contract.js';
import { PAGE_SIZE } from '../metadata/contract.js';
import type { StageItem } from '../storage/contract.js';
import type { PageRun, PublishSnapshot } from './cache-contract.js';

export interface FileBase {
  readonly version: number;
  readonly pages: number;
  readonly stripes: readonly Stripe[];
}

/** Where the stripe that holds byte `offset` begins and how long it is; both multiples of 1 MiB. */
export type StripeGeometry = (offset: number) => { readonly offset: number; readonly length: number };

/** One stripe that a publish touches. */
interface TouchedStripe {
  readonly base: Stripe | undefined;
  readonly offset: number;
  readonly length: number;
  readonly node: number;
  readonly writes: PageRun[];
  readonly holes: PageRun[];
  keepPages: number;
  id: number;
  version: number;
}

export class FilePlan {
  readonly baseVersion: number;
  readonly basePages: number;
  readonly removedStripes: readonly number[];
  readonly pagesWritten: number;
  readonly #touched: readonly TouchedStripe[];

  constructor(
    readonly snapshot: PublishSnapshot,
    base: FileBase,
    touched: readonly TouchedStripe[],
    removedStripes: readonly number[],
  ) {
    this.baseVersion = base.version;
    this.basePages = base.pages;
    this.#touched = touched;
    this.removedStripes = removedStripes;
    this.pagesWritten = snapshot.writes.reduce((sum, [, count]) => sum + count, 0);
  }

  /** Every touched stripe needs a version, a new one an identifier as well; both come from one number space. */
  get idsNeeded(): number {
    return this.#touched.reduce((sum, stripe) => sum + (stripe.base === undefined ? 2 : 1), 0);
  }

  assignIds(next: () => number): void {
    for (const stripe of this.#touched) {
      stripe.id = stripe.base?.id ?? next();
      stripe.version = next();
    }
  }

  get stripes(): Stripe[] {
    return this.#touched.map(({ offset, length, id, version, node }) => ({
      offset,
      length,
      id,
      version,
      node,
    }));
  }

  get stageItems(): Array<{ readonly node: number; readonly item: StageItem }> {
    return this.#touched.map((stripe) => ({
      node: stripe.node,
      item: {
        stripe: stripe.id,
        baseVersion: stripe.base?.version ?? 0,
        newVersion: stripe.version,
        ino: this.snapshot.ino,
        filePage: stripe.offset / PAGE_SIZE,
        keepPages: stripe.keepPages,
        writes: stripe.writes,
        holes: stripe.holes,
      },
    }));
  }
}

export function planFile(
  snapshot: PublishSnapshot,
  base: FileBase,
  geometry: StripeGeometry,
  placeStripe: () => number,
): FilePlan {
  const limitBytes = snapshot.baseLimitPage * PAGE_SIZE;
  const removed = base.stripes.filter((stripe) => stripe.offset >= limitBytes);
  const kept = base.stripes.filter((stripe) => stripe.offset < limitBytes);
  const touched = new Map<number, TouchedStripe>();
  const touch = (offset: number): TouchedStripe => {
    const existing = kept.find((stripe) => offset >= stripe.offset && offset < stripe.offset + stripe.length);
    const place = existing ?? boundedGeometry(geometry(offset), offset, kept);
    let stripe = touched.get(place.offset);
    if (stripe === undefined) {
      stripe = {
        base: existing,
        offset: place.offset,
        length: place.length,
        node: existing?.node ?? placeStripe(),
        writes: [],
        holes: [],
        keepPages: Number.POSITIVE_INFINITY,
        id: 0,
        version: 0,
      };
      touched.set(place.offset, stripe);
    }
    return stripe;
  };

  for (const stripe of kept) {
    if (stripe.offset + stripe.length > limitBytes) {
      touch(stripe.offset).keepPages = (limitBytes - stripe.offset) / PAGE_SIZE;
    }
  }
  for (const run of snapshot.writes) splitRun(run, touch, (stripe, part) => stripe.writes.push(part));
  for (const run of snapshot.holes) {
    for (const stripe of kept) {
      const part = clip(run, stripe);
      if (part !== undefined) touch(stripe.offset).holes.push(part);
    }
  }
  const ordered = [...touched.values()].sort((left, right) => left.offset - right.offset);
  return new FilePlan(
    snapshot,
    base,
    ordered,
    removed.map((stripe) => stripe.id),
  );
}

/** Shrinks a new stripe so that it does not overlap those that exist. */
function boundedGeometry(
  place: { readonly offset: number; readonly length: number },
  at: number,
  stripes: readonly Stripe[],
): { offset: number; length: number } {
  let start = place.offset;
  let end = place.offset + place.length;
  for (const stripe of stripes) {
    const stripeEnd = stripe.offset + stripe.length;
    if (stripeEnd <= at) start = Math.max(start, stripeEnd);
    else end = Math.min(end, stripe.offset);
  }
  return { offset: start, length: end - start };
}

/** Hands out a file-relative run as stripe-relative parts. */
function splitRun(
  [first, count]: PageRun,
  stripeOf: (offset: number) => TouchedStripe,
  give: (stripe: TouchedStripe, part: PageRun) => void,
): void {
  let page = first;
  const end = first + count;
  while (page < end) {
    const stripe = stripeOf(page * PAGE_SIZE);
    const stripeFirst = stripe.offset / PAGE_SIZE;
    const stop = Math.min(end, stripeFirst + stripe.length / PAGE_SIZE);
    give(stripe, [page - stripeFirst, stop - page]);
    page = stop;
  }
}

function clip([first, count]: PageRun, stripe: Stripe): PageRun | undefined {
  const stripeFirst = stripe.offset / PAGE_SIZE;
  const start = Math.max(first, stripeFirst);
  const end = Math.min(first + count, stripeFirst + stripe.length / PAGE_SIZE);
  return start < end ? [start - stripeFirst, end - start] : undefined;
}
