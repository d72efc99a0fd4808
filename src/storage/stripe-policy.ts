// How a file is cut into stripes. A pure function of what exists and what is dirty, so that every node that asks gets
// the same answer; a stripe's place and size never change once made.
//
//   MiB  0   1   2       4               8          ...      64               128              192
//        | 1 | 1 |   2   |       4       |     8     ...      |       64       |       64       | 64 ...
//
// Stripe k >= 1 begins at 2^(k-1) MiB and is as long as all before it, until 64 MiB; from there on each has 64 MiB. A
// small file costs one small stripe, a large one few descriptors.

export const MIB = 1024 * 1024;
export const PAGE_BYTES = 4096;
export const STRIPE_BYTES_MAX = 64 * MIB;

export interface StripePlace {
  /** Bytes, multiples of 1 MiB. */
  readonly offset: number;
  readonly length: number;
}

/** A run of dirty pages [first, count) within one stripe; `firstPage` is relative to the stripe. */
export interface CoveredRun<S extends StripePlace> {
  /** One of the existing stripes, or the place of a new one (the same object for every run in it). */
  readonly stripe: S | StripePlace;
  readonly isNew: boolean;
  readonly firstPage: number;
  readonly count: number;
}

/** Where the policy would put the stripe that holds byte `offset` of a file without stripes. */
export function stripePlaceAt(offset: number): StripePlace {
  if (!(offset >= 0) || !Number.isSafeInteger(offset)) {
    throw new RangeError(`a file offset must be an integer in 0..2^53, got ${offset}`);
  }
  if (offset >= STRIPE_BYTES_MAX) {
    return { offset: offset - (offset % STRIPE_BYTES_MAX), length: STRIPE_BYTES_MAX };
  }
  if (offset < MIB) return { offset: 0, length: MIB };
  let begin = MIB;
  while (offset >= 2 * begin) begin *= 2;
  return { offset: begin, length: begin };
}

/**
 * Which stripes hold the dirty runs [first page of the file, count]. `existing` is in order of offset and does not
 * overlap; it need not follow this policy (an earlier one may have made it). New stripes fill the gaps between existing
 * ones, never overlapping any. The answer is in the order of the runs; runs are cut at stripe ends.
 */
export function coverRuns<S extends StripePlace>(
  existing: readonly S[],
  runs: Iterable<readonly [number, number]>,
): CoveredRun<S>[] {
  const covered: CoveredRun<S>[] = [];
  const made = new Map<number, StripePlace>();
  for (const [firstPage, count] of runs) {
    const end = (firstPage + count) * PAGE_BYTES;
    for (let at = firstPage * PAGE_BYTES; at < end; ) {
      const next = firstEndingAfter(existing, at);
      const found = existing[next];
      let stripe: S | StripePlace;
      let isNew = false;
      if (found !== undefined && found.offset <= at) {
        stripe = found;
      } else {
        const place = clip(stripePlaceAt(at), endOf(existing[next - 1]), found?.offset ?? Infinity);
        stripe = made.get(place.offset) ?? place;
        made.set(place.offset, stripe);
        isNew = true;
      }
      const stop = Math.min(end, endOf(stripe));
      covered.push({
        stripe,
        isNew,
        firstPage: (at - stripe.offset) / PAGE_BYTES,
        count: (stop - at) / PAGE_BYTES,
      });
      at = stop;
    }
  }
  return covered;
}

function endOf(stripe: StripePlace | undefined): number {
  return stripe === undefined ? 0 : stripe.offset + stripe.length;
}

function clip(place: StripePlace, from: number, to: number): StripePlace {
  const offset = Math.max(place.offset, from);
  return { offset, length: Math.min(endOf(place), to) - offset };
}

/** Index of the first stripe that ends beyond byte `at`: the one that holds it, or the next. */
export function firstEndingAfter(stripes: readonly StripePlace[], at: number): number {
  let low = 0;
  let high = stripes.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (endOf(stripes[middle]) > at) high = middle;
    else low = middle + 1;
  }
  return low;
}
