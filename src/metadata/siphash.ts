// SipHash-2-4 (Aumasson, Bernstein 2012), 128-bit key, 64-bit result, on 32-bit halves: names are chosen by users, and a
// keyed hash keeps them from choosing collisions. A reduced hash (HalfSipHash) would be a little faster, but has far
// less analysis behind it, and a name costs well under a microsecond here.

/** A hash value in two halves, so that the hot path needs no bigint. */
export interface Hash64 {
  high: number;
  low: number;
}

let v0h = 0;
let v0l = 0;
let v1h = 0;
let v1l = 0;
let v2h = 0;
let v2l = 0;
let v3h = 0;
let v3l = 0;

function round(): void {
  let low = (v0l >>> 0) + (v1l >>> 0);
  v0h = (v0h + v1h + (low > 0xffffffff ? 1 : 0)) | 0;
  v0l = low | 0;
  let high = (v1h << 13) | (v1l >>> 19);
  v1l = ((v1l << 13) | (v1h >>> 19)) ^ v0l;
  v1h = high ^ v0h;
  high = v0h;
  v0h = v0l;
  v0l = high;

  low = (v2l >>> 0) + (v3l >>> 0);
  v2h = (v2h + v3h + (low > 0xffffffff ? 1 : 0)) | 0;
  v2l = low | 0;
  high = (v3h << 16) | (v3l >>> 16);
  v3l = ((v3l << 16) | (v3h >>> 16)) ^ v2l;
  v3h = high ^ v2h;

  low = (v0l >>> 0) + (v3l >>> 0);
  v0h = (v0h + v3h + (low > 0xffffffff ? 1 : 0)) | 0;
  v0l = low | 0;
  high = (v3h << 21) | (v3l >>> 11);
  v3l = ((v3l << 21) | (v3h >>> 11)) ^ v0l;
  v3h = high ^ v0h;

  low = (v2l >>> 0) + (v1l >>> 0);
  v2h = (v2h + v1h + (low > 0xffffffff ? 1 : 0)) | 0;
  v2l = low | 0;
  high = (v1h << 17) | (v1l >>> 15);
  v1l = ((v1l << 17) | (v1h >>> 15)) ^ v2l;
  v1h = high ^ v2h;
  high = v2h;
  v2h = v2l;
  v2l = high;
}

export class SipHash {
  readonly #k0h: number;
  readonly #k0l: number;
  readonly #k1h: number;
  readonly #k1l: number;

  /** `key`: 16 bytes. */
  constructor(key: Buffer) {
    if (key.length !== 16) throw new RangeError('a SipHash key has 16 bytes');
    this.#k0l = key.readInt32LE(0);
    this.#k0h = key.readInt32LE(4);
    this.#k1l = key.readInt32LE(8);
    this.#k1h = key.readInt32LE(12);
  }

  hash(data: Uint8Array): Hash64 {
    v0h = this.#k0h ^ 0x736f6d65;
    v0l = this.#k0l ^ 0x70736575;
    v1h = this.#k1h ^ 0x646f7261;
    v1l = this.#k1l ^ 0x6e646f6d;
    v2h = this.#k0h ^ 0x6c796765;
    v2l = this.#k0l ^ 0x6e657261;
    v3h = this.#k1h ^ 0x74656462;
    v3l = this.#k1l ^ 0x79746573;
    const length = data.length;
    const whole = length - (length & 7);
    for (let at = 0; at < whole; at += 8) {
      const low = data[at]! | (data[at + 1]! << 8) | (data[at + 2]! << 16) | (data[at + 3]! << 24);
      const high = data[at + 4]! | (data[at + 5]! << 8) | (data[at + 6]! << 16) | (data[at + 7]! << 24);
      this.#compress(high, low);
    }
    let low = 0;
    let high = (length & 0xff) << 24;
    for (let at = whole; at < length; at++) {
      const shift = (at - whole) * 8;
      if (shift < 32) low |= data[at]! << shift;
      else high |= data[at]! << (shift - 32);
    }
    this.#compress(high, low);
    v2l ^= 0xff;
    round();
    round();
    round();
    round();
    return { high: (v0h ^ v1h ^ v2h ^ v3h) >>> 0, low: (v0l ^ v1l ^ v2l ^ v3l) >>> 0 };
  }

  #compress(high: number, low: number): void {
    v3h ^= high;
    v3l ^= low;
    round();
    round();
    v0h ^= high;
    v0l ^= low;
  }
}
