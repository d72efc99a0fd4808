/** The place of `value` among the first `length` of `sorted`, which ascend without repetition; -1 when it is not there. */
export function indexInSorted(sorted: Float64Array, value: number, length = sorted.length): number {
  let low = 0;
  let high = length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (sorted[middle]! < value) low = middle + 1;
    else high = middle;
  }
  return low < length && sorted[low] === value ? low : -1;
}
