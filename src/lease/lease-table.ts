// The records of leases, as columns of numbers: granting, renewing and ending one allocates nothing.
//
//   lease number = generation x 2^24 + slot        a slot's generation grows with every use, so old numbers name nothing
//
//   slot: free ──begin──> live ──end──> ended (still tells who held what) ──begin──> live ...
//                  per producer:  a doubly linked list of its live leases
//                  per tick:      a hashed timing wheel (Varghese and Lauck 1987), a doubly linked list per bucket
//
// Renewing to a later time only moves the deadline; the wheel finds out when it comes by and puts the lease further on. Free slots are used
// first-in first-out and a reserve of them is kept, so that a report about a lease that just ended is still believed.

const SLOT_BITS = 24;
const SLOTS_MAX = 2 ** SLOT_BITS;
const GENERATIONS = 2 ** (52 - SLOT_BITS);
/** Ended leases that are remembered at the least. */
const RESERVE = 1024;
const BUCKETS = 4096;
const NONE = -1;

const LIVE = 1;
const REPORTED = 2;

export class LeaseTable {
  #size = 2 * RESERVE;
  #generations = new Int32Array(this.#size);
  #flags = new Uint8Array(this.#size);
  #producers = new Int32Array(this.#size).fill(NONE);
  #incarnations = new Int32Array(this.#size);
  #consumers = new Float64Array(this.#size);
  #grantedMs = new Float64Array(this.#size);
  #expiresMs = new Float64Array(this.#size);
  #sequences = new Float64Array(this.#size);
  #nextOfProducer = new Int32Array(this.#size);
  #previousOfProducer = new Int32Array(this.#size);
  #nextInBucket = new Int32Array(this.#size);
  #previousInBucket = new Int32Array(this.#size);
  #bucketOf = new Int32Array(this.#size);
  #firstOfProducer: Int32Array;

  readonly #buckets = new Int32Array(BUCKETS).fill(NONE);
  readonly #tickMs: number;
  #tick = 0;
  #started = false;

  /** Free slots through nextInBucket, oldest first. */
  #freeHead = NONE;
  #freeTail = NONE;
  #free = 0;
  #live = 0;

  /** `ttlMsMax`: a wheel turn covers it. */
  constructor(producers: number, ttlMsMax: number) {
    this.#firstOfProducer = new Int32Array(producers).fill(NONE);
    this.#tickMs = Math.max(1, (ttlMsMax * 2) / BUCKETS);
    for (let slot = 0; slot < this.#size; slot += 1) this.#giveBack(slot);
  }

  get live(): number {
    return this.#live;
  }

  growProducers(producers: number): void {
    const larger = new Int32Array(producers).fill(NONE);
    larger.set(this.#firstOfProducer);
    this.#firstOfProducer = larger;
  }

  /** The new lease's number; -1 when 2^24 leases are live. */
  begin(
    producer: number,
    incarnation: number,
    consumer: number,
    sequence: number,
    nowMs: number,
    expiresMs: number,
  ): number {
    if (this.#free <= RESERVE && !this.#grow()) return NONE;
    if (!this.#started) {
      this.#started = true;
      this.#tick = Math.floor(nowMs / this.#tickMs);
    }
    const slot = this.#freeHead;
    this.#freeHead = this.#nextInBucket[slot]!;
    if (this.#freeHead === NONE) this.#freeTail = NONE;
    this.#free -= 1;
    this.#live += 1;
    const generation = (this.#generations[slot]! + 1) % GENERATIONS;
    this.#generations[slot] = generation;
    this.#flags[slot] = LIVE;
    this.#producers[slot] = producer;
    this.#incarnations[slot] = incarnation;
    this.#consumers[slot] = consumer;
    this.#grantedMs[slot] = nowMs;
    this.#expiresMs[slot] = expiresMs;
    this.#sequences[slot] = sequence;
    const first = this.#firstOfProducer[producer]!;
    this.#nextOfProducer[slot] = first;
    this.#previousOfProducer[slot] = NONE;
    if (first !== NONE) this.#previousOfProducer[first] = slot;
    this.#firstOfProducer[producer] = slot;
    this.#intoBucket(slot, expiresMs);
    return generation * SLOTS_MAX + slot;
  }

  /** Where a live lease's record is, or -1. */
  slotOf(lease: number): number {
    const slot = this.#known(lease);
    return slot !== NONE && (this.#flags[slot]! & LIVE) !== 0 ? slot : NONE;
  }

  /** Like slotOf, and also for a lease that ended a little while ago. */
  slotOfKnown(lease: number): number {
    return this.#known(lease);
  }

  numberOf(slot: number): number {
    return this.#generations[slot]! * SLOTS_MAX + slot;
  }

  producer(slot: number): number {
    return this.#producers[slot]!;
  }

  incarnation(slot: number): number {
    return this.#incarnations[slot]!;
  }

  consumer(slot: number): number {
    return this.#consumers[slot]!;
  }

  sequence(slot: number): number {
    return this.#sequences[slot]!;
  }

  grantedMs(slot: number): number {
    return this.#grantedMs[slot]!;
  }

  expiresMs(slot: number): number {
    return this.#expiresMs[slot]!;
  }

  /** True the first time only. */
  markReported(slot: number): boolean {
    if ((this.#flags[slot]! & REPORTED) !== 0) return false;
    this.#flags[slot]! |= REPORTED;
    return true;
  }

  /** To a deadline not before the present one. */
  extend(slot: number, expiresMs: number): void {
    this.#expiresMs[slot] = expiresMs;
  }

  end(slot: number): void {
    const producer = this.#producers[slot]!;
    const next = this.#nextOfProducer[slot]!;
    const previous = this.#previousOfProducer[slot]!;
    if (previous === NONE) this.#firstOfProducer[producer] = next;
    else this.#nextOfProducer[previous] = next;
    if (next !== NONE) this.#previousOfProducer[next] = previous;
    this.#outOfBucket(slot);
    this.#flags[slot]! &= ~LIVE;
    this.#live -= 1;
    this.#giveBack(slot);
  }

  /** A live lease's slot of this producer, or -1. */
  firstOf(producer: number): number {
    return this.#firstOfProducer[producer]!;
  }

  nextOf(slot: number): number {
    return this.#nextOfProducer[slot]!;
  }

  /** Calls `expired(slot)` for each lease whose deadline has passed; that function ends it. */
  advance(nowMs: number, expired: (slot: number) => void): void {
    if (!this.#started) return;
    const until = Math.floor(nowMs / this.#tickMs);
    // Every bucket once is enough, however long the pause was.
    const from = Math.max(this.#tick, until - BUCKETS + 1);
    for (let tick = from; tick <= until; tick += 1) {
      let slot = this.#buckets[tick % BUCKETS]!;
      while (slot !== NONE) {
        const next = this.#nextInBucket[slot]!;
        if (this.#expiresMs[slot]! <= nowMs) expired(slot);
        else if (Math.floor(this.#expiresMs[slot]! / this.#tickMs) > tick) {
          this.#outOfBucket(slot);
          this.#intoBucket(slot, this.#expiresMs[slot]!);
        }
        slot = next;
      }
    }
    this.#tick = until;
  }

  #known(lease: number): number {
    if (!Number.isSafeInteger(lease) || lease < 0) return NONE;
    const slot = lease % SLOTS_MAX;
    if (slot >= this.#size || this.#producers[slot] === NONE) return NONE;
    return this.#generations[slot] === Math.floor(lease / SLOTS_MAX) ? slot : NONE;
  }

  #intoBucket(slot: number, expiresMs: number): void {
    const bucket = Math.floor(expiresMs / this.#tickMs) % BUCKETS;
    const first = this.#buckets[bucket]!;
    this.#bucketOf[slot] = bucket;
    this.#nextInBucket[slot] = first;
    this.#previousInBucket[slot] = NONE;
    if (first !== NONE) this.#previousInBucket[first] = slot;
    this.#buckets[bucket] = slot;
  }

  #outOfBucket(slot: number): void {
    const next = this.#nextInBucket[slot]!;
    const previous = this.#previousInBucket[slot]!;
    if (previous === NONE) this.#buckets[this.#bucketOf[slot]!] = next;
    else this.#nextInBucket[previous] = next;
    if (next !== NONE) this.#previousInBucket[next] = previous;
  }

  #giveBack(slot: number): void {
    this.#nextInBucket[slot] = NONE;
    if (this.#freeTail === NONE) this.#freeHead = slot;
    else this.#nextInBucket[this.#freeTail] = slot;
    this.#freeTail = slot;
    this.#free += 1;
  }

  #grow(): boolean {
    if (this.#size >= SLOTS_MAX) return this.#free > 0;
    const old = this.#size;
    const size = Math.min(SLOTS_MAX, old * 2);
    const ints = (column: Int32Array) => copied(new Int32Array(size), column);
    const floats = (column: Float64Array) => copied(new Float64Array(size), column);
    this.#generations = ints(this.#generations);
    this.#flags = copied(new Uint8Array(size), this.#flags);
    this.#producers = copied(new Int32Array(size).fill(NONE), this.#producers);
    this.#incarnations = ints(this.#incarnations);
    this.#consumers = floats(this.#consumers);
    this.#grantedMs = floats(this.#grantedMs);
    this.#expiresMs = floats(this.#expiresMs);
    this.#sequences = floats(this.#sequences);
    this.#nextOfProducer = ints(this.#nextOfProducer);
    this.#previousOfProducer = ints(this.#previousOfProducer);
    this.#nextInBucket = ints(this.#nextInBucket);
    this.#previousInBucket = ints(this.#previousInBucket);
    this.#bucketOf = ints(this.#bucketOf);
    this.#size = size;
    for (let slot = old; slot < size; slot += 1) this.#giveBack(slot);
    return true;
  }
}

function copied<T extends { set(from: ArrayLike<number>): void }>(larger: T, from: ArrayLike<number>): T {
  larger.set(from);
  return larger;
}
