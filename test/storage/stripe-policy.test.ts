// The stripe policy as a pure function: where stripes lie, and how runs of pages are cut along them.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  coverRuns,
  MIB,
  PAGE_BYTES,
  STRIPE_BYTES_MAX,
  type StripePlace,
  stripePlaceAt,
} from '../../src/storage/stripe-policy.js';

describe('where stripes lie', () => {
  test('sizes grow by offset: 1, 1, 2, 4, ... 64, then 64 MiB each', () => {
    const lengths: number[] = [];
    for (let at = 0; lengths.length < 10; ) {
      const place = stripePlaceAt(at);
      expect(place.offset).toBe(at);
      lengths.push(place.length / MIB);
      at += place.length;
    }
    expect(lengths).toEqual([1, 1, 2, 4, 8, 16, 32, 64, 64, 64]);
  });

  test('every offset lies in exactly the stripe that begins its range', () => {
    fc.assert(
      fc.property(fc.maxSafeNat(), (offset) => {
        const place = stripePlaceAt(offset);
        expect(place.offset).toBeLessThanOrEqual(offset);
        expect(offset).toBeLessThan(place.offset + place.length);
        expect(place.offset % MIB).toBe(0);
        expect(place.length % MIB).toBe(0);
        expect(place.length).toBeLessThanOrEqual(STRIPE_BYTES_MAX);
        expect(stripePlaceAt(place.offset)).toEqual(place);
      }),
    );
  });

  test('a negative or fractional offset is refused', () => {
    expect(() => stripePlaceAt(-1)).toThrow(RangeError);
    expect(() => stripePlaceAt(0.5)).toThrow(RangeError);
  });
});

/** Non-overlapping stripes in order, not necessarily of this policy's shape. */
const stripes = fc
  .array(fc.tuple(fc.nat(5), fc.integer({ min: 1, max: 70 })), { maxLength: 6 })
  .map((pairs) => {
    const out: StripePlace[] = [];
    let at = 0;
    for (const [gap, length] of pairs) {
      out.push({ offset: at + gap * MIB, length: length * MIB });
      at += (gap + length) * MIB;
    }
    return out;
  });

const runs = fc.array(fc.tuple(fc.nat(80_000), fc.integer({ min: 1, max: 3_000 })), { maxLength: 8 });

describe('covering dirty runs', () => {
  test('given any stripes and runs, then every page is covered once, in order, within its stripe', () => {
    fc.assert(
      fc.property(stripes, runs, (existing, dirty) => {
        const pages: [number, number][] = [];
        for (const piece of coverRuns(existing, dirty)) {
          expect(piece.count).toBeGreaterThan(0);
          expect((piece.firstPage + piece.count) * PAGE_BYTES).toBeLessThanOrEqual(piece.stripe.length);
          expect(existing.includes(piece.stripe)).toBe(!piece.isNew);
          const first = piece.stripe.offset / PAGE_BYTES + piece.firstPage;
          const last = pages.at(-1);
          if (last !== undefined && last[0] + last[1] === first) last[1] += piece.count;
          else pages.push([first, piece.count]);
        }
        const expected: [number, number][] = [];
        for (const [first, count] of dirty) {
          const last = expected.at(-1);
          if (last !== undefined && last[0] + last[1] === first) last[1] += count;
          else expected.push([first, count]);
        }
        expect(pages).toEqual(expected);
      }),
    );
  });

  test('given any stripes and runs, then new stripes overlap neither existing ones nor each other', () => {
    fc.assert(
      fc.property(stripes, runs, (existing, dirty) => {
        const fresh = new Set(
          coverRuns(existing, dirty)
            .filter((piece) => piece.isNew)
            .map((piece) => piece.stripe),
        );
        const all = [...existing, ...fresh].sort((a, b) => a.offset - b.offset);
        for (let i = 1; i < all.length; i++) {
          expect(all[i]!.offset).toBeGreaterThanOrEqual(all[i - 1]!.offset + all[i - 1]!.length);
        }
        for (const stripe of fresh) {
          expect(stripe.length).toBeGreaterThan(0);
          expect(stripe.offset % MIB).toBe(0);
          expect(stripe.length % MIB).toBe(0);
        }
      }),
    );
  });
});
