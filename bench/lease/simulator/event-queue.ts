// The future of a simulation: a binary heap of (time, order, kind, a, b) in typed arrays, so that an event costs no
// allocation. Events of the same instant leave in the order in which they came, which makes a run repeatable.
//
//   heapTime  [ 1.5 | 2.0 | 7.1 | ... ]   keys, beside the heap so that a comparison touches one array
//   heapSlot  [  4  |  0  |  9  | ... ]   ─> slot: order, kind, a, b      freed slots are stacked for reuse
const INITIAL_CAPACITY = 1024;

export class EventQueue {
  /** The event that `pop` took last. */
  timeMs = 0;
  kind = 0;
  a = 0;
  b = 0;

  #heapTime = new Float64Array(INITIAL_CAPACITY);
  #heapSlot = new Int32Array(INITIAL_CAPACITY);
  #order = new Float64Array(INITIAL_CAPACITY);
  #kinds = new Int32Array(INITIAL_CAPACITY);
  #as = new Int32Array(INITIAL_CAPACITY);
  #bs = new Int32Array(INITIAL_CAPACITY);
  #free = new Int32Array(INITIAL_CAPACITY);
  #freeCount = 0;
  #slotsUsed = 0;
  #length = 0;
  #pushed = 0;

  get length(): number {
    return this.#length;
  }

  /** How many events were ever pushed. */
  get pushed(): number {
    return this.#pushed;
  }

  /** `kind`, `a` and `b` are the caller's, 32-bit integers. `timeMs` may not lie before the event popped last. */
  push(timeMs: number, kind: number, a = 0, b = 0): void {
    if (!(timeMs >= this.timeMs))
      throw new RangeError(`an event at ${timeMs} ms, and it is ${this.timeMs} ms`);
    if (this.#length === this.#heapTime.length) this.#grow();
    const slot = this.#freeCount > 0 ? this.#free[--this.#freeCount]! : this.#slotsUsed++;
    const order = this.#pushed++;
    this.#order[slot] = order;
    this.#kinds[slot] = kind;
    this.#as[slot] = a;
    this.#bs[slot] = b;
    const times = this.#heapTime;
    const slots = this.#heapSlot;
    let hole = this.#length++;
    // The newest event has the highest order: it passes a parent only if it is strictly earlier.
    while (hole > 0) {
      const parent = (hole - 1) >> 1;
      if (times[parent]! <= timeMs) break;
      times[hole] = times[parent]!;
      slots[hole] = slots[parent]!;
      hole = parent;
    }
    times[hole] = timeMs;
    slots[hole] = slot;
  }

  /** Takes the earliest event into `timeMs`, `kind`, `a`, `b`; false when there is none. */
  pop(): boolean {
    if (this.#length === 0) return false;
    const times = this.#heapTime;
    const slots = this.#heapSlot;
    const slot = slots[0]!;
    this.timeMs = times[0]!;
    this.kind = this.#kinds[slot]!;
    this.a = this.#as[slot]!;
    this.b = this.#bs[slot]!;
    this.#free[this.#freeCount++] = slot;
    const last = --this.#length;
    if (last > 0) this.#sink(times[last]!, slots[last]!);
    return true;
  }

  #sink(timeMs: number, slot: number): void {
    const times = this.#heapTime;
    const slots = this.#heapSlot;
    const orders = this.#order;
    const order = orders[slot]!;
    const length = this.#length;
    let hole = 0;
    for (;;) {
      let child = 2 * hole + 1;
      if (child >= length) break;
      let childTime = times[child]!;
      if (child + 1 < length) {
        const right = times[child + 1]!;
        if (
          right < childTime ||
          (right === childTime && orders[slots[child + 1]!]! < orders[slots[child]!]!)
        ) {
          child += 1;
          childTime = right;
        }
      }
      if (childTime > timeMs || (childTime === timeMs && orders[slots[child]!]! > order)) break;
      times[hole] = childTime;
      slots[hole] = slots[child]!;
      hole = child;
    }
    times[hole] = timeMs;
    slots[hole] = slot;
  }

  #grow(): void {
    const capacity = this.#heapTime.length * 2;
    this.#heapTime = widenFloats(this.#heapTime, capacity);
    this.#order = widenFloats(this.#order, capacity);
    this.#heapSlot = widenInts(this.#heapSlot, capacity);
    this.#kinds = widenInts(this.#kinds, capacity);
    this.#as = widenInts(this.#as, capacity);
    this.#bs = widenInts(this.#bs, capacity);
    this.#free = widenInts(this.#free, capacity);
  }
}

export function widenFloats(array: Float64Array<ArrayBuffer>, capacity: number): Float64Array<ArrayBuffer> {
  const wider = new Float64Array(capacity);
  wider.set(array);
  return wider;
}

export function widenInts(array: Int32Array<ArrayBuffer>, capacity: number): Int32Array<ArrayBuffer> {
  const wider = new Int32Array(capacity);
  wider.set(array);
  return wider;
}
