// Weighted choice in constant time among weights that stand still: Walker's alias method in Vose's form (Vose 1991, "A linear
// algorithm for generating random numbers with a given distribution").
//
//   column i:  | own share of i ... | alias of i |     draw: a column, then which side of its boundary
//
// Built once per computation of weights, in O(n) and without allocation; what changes until then is the caller's to reject.

export class AliasTable {
  #boundaries: Float64Array;
  #aliases: Int32Array;
  #worklist: Int32Array;
  #columns = 0;
  #total = 0;

  constructor(size: number) {
    this.#boundaries = new Float64Array(size);
    this.#aliases = new Int32Array(size);
    this.#worklist = new Int32Array(size);
  }

  /** Sum of the weights it was built of; 0: nothing can be drawn. */
  get total(): number {
    return this.#total;
  }

  grow(size: number): void {
    if (size <= this.#boundaries.length) return;
    this.#boundaries = new Float64Array(size);
    this.#aliases = new Int32Array(size);
    this.#worklist = new Int32Array(size);
    this.#total = 0;
  }

  /** Of the weights of slots 0 .. count - 1. */
  build(weightOf: (slot: number) => number, count: number): void {
    let total = 0;
    for (let slot = 0; slot < count; slot += 1) {
      this.#boundaries[slot] = weightOf(slot);
      total += this.#boundaries[slot]!;
    }
    this.#columns = count;
    this.#total = total;
    if (!(total > 0)) return;
    const scale = count / total;
    // Poor columns from the left, rich ones from the right, of one worklist.
    const list = this.#worklist;
    let poor = 0;
    let rich = count;
    for (let slot = 0; slot < count; slot += 1) {
      this.#boundaries[slot]! *= scale;
      this.#aliases[slot] = slot;
      if (this.#boundaries[slot]! < 1) {
        list[poor] = slot;
        poor += 1;
      } else {
        rich -= 1;
        list[rich] = slot;
      }
    }
    while (poor > 0 && rich < count) {
      poor -= 1;
      const giver = list[rich]!;
      const taker = list[poor]!;
      this.#aliases[taker] = giver;
      this.#boundaries[giver]! -= 1 - this.#boundaries[taker]!;
      if (this.#boundaries[giver]! >= 1) continue;
      rich += 1;
      list[poor] = giver;
      poor += 1;
    }
    // What rounding left over is full.
    for (let i = 0; i < poor; i += 1) this.#boundaries[list[i]!] = 1;
    for (let i = rich; i < count; i += 1) this.#boundaries[list[i]!] = 1;
  }

  /** `fraction` in [0, 1); only when total > 0. */
  draw(fraction: number): number {
    const position = fraction * this.#columns;
    const column = Math.floor(position);
    return position - column < this.#boundaries[column]! ? column : this.#aliases[column]!;
  }
}
