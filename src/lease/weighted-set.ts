// Weighted choice among slots whose weights change one at a time: a Fenwick tree (Fenwick 1994) over the weights.
//
//   draw(x), 0 <= x < total: the slot where the running sum of weights passes x     O(log n), no allocation
//
// An alias table draws in O(1) and takes O(n) to change one weight; leases fill and free producers all the time, so the tree
// wins. Sums of floating-point differences drift; `rebuild` (once per computation of weights) starts them afresh. The tree itself
// is made by the first draw after that, and kept up from then on: who never draws pays for nothing but the total.

export class WeightedSet {
  #weights: Float64Array;
  /** tree[i], 1-based: the sum of the weights of (i - lowbit(i), i]. */
  #tree: Float64Array;
  #size: number;
  #total = 0;
  #positive = 0;
  /** Whether the tree says what the weights say. */
  #standing = false;

  /** `size`: slots 0 .. size - 1; rounded up to a power of two. */
  constructor(size: number) {
    this.#size = powerOfTwo(size);
    this.#weights = new Float64Array(this.#size);
    this.#tree = new Float64Array(this.#size + 1);
  }

  get total(): number {
    return this.#total;
  }

  /** How many slots have a weight. */
  get positive(): number {
    return this.#positive;
  }

  weight(slot: number): number {
    return this.#weights[slot]!;
  }

  grow(size: number): void {
    const larger = powerOfTwo(size);
    if (larger <= this.#size) return;
    const weights = new Float64Array(larger);
    weights.set(this.#weights);
    this.#weights = weights;
    this.#tree = new Float64Array(larger + 1);
    this.#size = larger;
    this.rebuild();
  }

  set(slot: number, weight: number): void {
    const old = this.#weights[slot]!;
    if (old === weight) return;
    this.#weights[slot] = weight;
    if (old === 0) this.#positive += 1;
    else if (weight === 0) this.#positive -= 1;
    const change = weight - old;
    this.#total = this.#positive === 0 ? 0 : this.#total + change;
    if (!this.#standing) return;
    const tree = this.#tree;
    for (let i = slot + 1; i <= this.#size; i += i & -i) tree[i]! += change;
  }

  /** Only valid before `rebuild`, which makes it count. */
  setLater(slot: number, weight: number): void {
    this.#weights[slot] = weight;
  }

  rebuild(): void {
    let total = 0;
    let positive = 0;
    for (let slot = 0; slot < this.#size; slot += 1) {
      const weight = this.#weights[slot]!;
      if (weight > 0) positive += 1;
      total += weight;
    }
    this.#total = total;
    this.#positive = positive;
    this.#standing = false;
  }

  #stand(): void {
    const tree = this.#tree;
    for (let i = 1; i <= this.#size; i += 1) tree[i] = this.#weights[i - 1]!;
    for (let i = 1; i <= this.#size; i += 1) {
      const parent = i + (i & -i);
      if (parent <= this.#size) tree[parent]! += tree[i]!;
    }
    // From here on both are sums of the same terms.
    this.#total = tree[this.#size]!;
    this.#standing = true;
  }

  /** A slot with a weight, or -1 when there is none; `fraction` in [0, 1). */
  draw(fraction: number): number {
    if (this.#positive === 0) return -1;
    if (!this.#standing) this.#stand();
    const tree = this.#tree;
    let rest = fraction * this.#total;
    let position = 0;
    for (let step = this.#size; step > 0; step >>= 1) {
      const next = position + step;
      if (next > this.#size) continue;
      const sum = tree[next]!;
      if (sum <= rest) {
        position = next;
        rest -= sum;
      }
    }
    return position < this.#size && this.#weights[position]! > 0 ? position : this.#nearest(position);
  }

  /** Rounding may lead to a slot without weight, or past the end; then the next one with weight, cyclically. */
  #nearest(position: number): number {
    for (let i = 0; i < this.#size; i += 1) {
      const slot = (position + i) % this.#size;
      if (this.#weights[slot]! > 0) return slot;
    }
    return -1;
  }
}

function powerOfTwo(size: number): number {
  return 2 ** Math.max(3, Math.ceil(Math.log2(Math.max(1, size))));
}
