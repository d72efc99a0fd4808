// One owner's byte-range locks on one inode, as POSIX wants them: setting a range overwrites whatever the owner held
// there (upgrade, downgrade, unlock), splits what it cuts through, and joins equal neighbours.
//
//   held      [0 ------ read ------ 99]
//   set       write 40..59
//   result    [0 read 39][40 write 59][60 read 99]
//
// A list is sorted by start, its ranges are disjoint, and no two neighbours of one kind touch.
import type { LockKind, LockRange } from './lock-contract.js';

export interface HeldRange extends LockRange {
  readonly kind: LockKind;
}

/** The list after [start, end] has become `kind` (undefined: unlocked). `held` is not changed. */
export function setRange(
  held: readonly HeldRange[],
  start: number,
  end: number,
  kind: LockKind | undefined,
): HeldRange[] {
  const before: HeldRange[] = [];
  const after: HeldRange[] = [];
  let joinedStart = start;
  let joinedEnd = end;
  for (const range of held) {
    if (range.kind === kind && range.end + 1 >= start && range.start - 1 <= end) {
      joinedStart = Math.min(joinedStart, range.start);
      joinedEnd = Math.max(joinedEnd, range.end);
      continue;
    }
    if (range.start < start) before.push(range.end < start ? range : { ...range, end: start - 1 });
    if (range.end > end) after.push(range.start > end ? range : { ...range, start: end + 1 });
  }
  if (kind === undefined) return [...before, ...after];
  return [...before, { start: joinedStart, end: joinedEnd, kind }, ...after];
}

/** The first range in `held` that a lock of `kind` over [start, end] by somebody else would conflict with. */
export function firstConflict(
  held: readonly HeldRange[],
  start: number,
  end: number,
  kind: LockKind,
): HeldRange | undefined {
  for (let index = firstEndingAtOrAfter(held, start); index < held.length; index++) {
    const range = held[index]!;
    if (range.start > end) return undefined;
    if (kind === 'write' || range.kind === 'write') return range;
  }
  return undefined;
}

function firstEndingAtOrAfter(held: readonly HeldRange[], position: number): number {
  let low = 0;
  let high = held.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (held[middle]!.end < position) low = middle + 1;
    else high = middle;
  }
  return low;
}
