// The publish plan against a model: a file is an array of page contents; applying the plan's instructions stripe by stripe
// must give what the snapshot describes, for any history of earlier publishes.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { PageRun, PublishSnapshot } from '../../src/gateway/cache-contract.js';
import { planFile } from '../../src/gateway/publish-plan.js';
import type { Stripe } from '../../src/metadata/contract.js';
import { PAGE_SIZE } from '../../src/metadata/contract.js';

const MIB = 1024 * 1024;
const PAGES_PER_MIB = MIB / PAGE_SIZE;

/** Stripes of 1 MiB, then 2 MiB: boundaries are near enough to be crossed often. */
function geometry(offset: number): { offset: number; length: number } {
  if (offset < MIB) return { offset: 0, length: MIB };
  const start = Math.floor((offset - MIB) / (2 * MIB)) * 2 * MIB + MIB;
  return { offset: start, length: 2 * MIB };
}

/** What a storage node keeps: pages (relative to the stripe) by stripe version. */
class StripeModel {
  readonly versions = new Map<string, Map<number, number>>();

  apply(plan: ReturnType<typeof planFile>, contentOf: (filePage: number) => number): void {
    for (const { item } of plan.stageItems) {
      const pages = new Map<number, number>();
      if (item.baseVersion !== 0) {
        for (const [page, content] of this.versions.get(`${item.stripe}:${item.baseVersion}`)!) {
          if (page < item.keepPages) pages.set(page, content);
        }
      }
      for (const [first, count] of item.holes) {
        for (let page = first; page < first + count; page += 1) pages.delete(page);
      }
      for (const [first, count] of item.writes) {
        for (let page = first; page < first + count; page += 1)
          pages.set(page, contentOf(item.filePage + page));
      }
      this.versions.set(`${item.stripe}:${item.newVersion}`, pages);
    }
  }

  fileContents(stripes: readonly Stripe[]): Map<number, number> {
    const contents = new Map<number, number>();
    for (const stripe of stripes) {
      for (const [page, content] of this.versions.get(`${stripe.id}:${stripe.version}`)!) {
        contents.set(stripe.offset / PAGE_SIZE + page, content);
      }
    }
    return contents;
  }
}

const FILE_PAGES = 6 * PAGES_PER_MIB;
const run = fc
  .tuple(fc.nat(FILE_PAGES - 1), fc.integer({ min: 1, max: 700 }))
  .map(([first, count]): PageRun => [first, Math.min(count, FILE_PAGES - first)]);
const step = fc.record({
  cut: fc.option(fc.nat(FILE_PAGES), { nil: undefined }),
  holes: fc.array(run, { maxLength: 2 }),
  writes: fc.array(run, { maxLength: 3 }),
});

test('any history of cuts, holes and writes publishes what the file holds', () => {
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 6 }), (history) => {
      const storage = new StripeModel();
      let stripes: Stripe[] = [];
      let file = new Map<number, number>();
      let nextId = 1;
      let content = 1;
      for (const { cut, holes, writes } of history) {
        const limit = cut ?? Number.POSITIVE_INFINITY;
        file = new Map([...file].filter(([page]) => page < limit));
        for (const [first, count] of holes) {
          for (let page = first; page < first + count; page += 1) file.delete(page);
        }
        const written = new Set<number>();
        for (const [first, count] of writes) {
          for (let page = first; page < first + count; page += 1) {
            file.set(page, content++);
            written.add(page);
          }
        }
        const dirtyRuns = toRuns([...written]);
        const holeRuns = toRuns(
          holes.flatMap(([first, count]) =>
            Array.from({ length: count }, (_, index) => first + index).filter((page) => !written.has(page)),
          ),
        );
        const snapshot: PublishSnapshot = {
          ino: 7,
          generation: 1,
          size: FILE_PAGES * PAGE_SIZE,
          pages: file.size,
          mtime: { sec: 0, nsec: 0 },
          ctime: { sec: 0, nsec: 0 },
          baseVersion: 0,
          baseLimitPage: limit,
          writes: dirtyRuns,
          holes: holeRuns,
        };
        const plan = planFile(snapshot, { version: 0, pages: 0, stripes }, geometry, () => 1);
        plan.assignIds(() => nextId++);
        storage.apply(plan, (page) => file.get(page)!);
        const changed = new Map(plan.stripes.map((stripe) => [stripe.id, stripe]));
        const removed = new Set(plan.removedStripes);
        stripes = stripes
          .filter((stripe) => !removed.has(stripe.id) && !changed.has(stripe.id))
          .concat([...changed.values()])
          .sort((left, right) => left.offset - right.offset);

        for (let index = 1; index < stripes.length; index += 1) {
          const previous = stripes[index - 1]!;
          expect(previous.offset + previous.length).toBeLessThanOrEqual(stripes[index]!.offset);
        }
        expect(new Map([...storage.fileContents(stripes)].sort((a, b) => a[0] - b[0]))).toEqual(
          new Map([...file].sort((a, b) => a[0] - b[0])),
        );
      }
    }),
    { numRuns: 100 },
  );
});

function toRuns(pages: number[]): PageRun[] {
  const runs: Array<[number, number]> = [];
  for (const page of [...new Set(pages)].sort((left, right) => left - right)) {
    const last = runs.at(-1);
    if (last !== undefined && last[0] + last[1] === page) last[1] += 1;
    else runs.push([page, 1]);
  }
  return runs;
}
