// Where a name stands in its directory: a 62-bit keyed hash. The hash is the readdir cookie too, so it is never below 16
// (0 is the beginning; the gateway adds "." and ".." under small cookies) and fits a positive 64-bit number.
import type { Name } from './contract.js';
import { MAX_NAME_BYTES } from './contract.js';
import { errno } from './errors.js';
import { type Hash64, SipHash } from './siphash.js';

export const COOKIE_MIN = 16;
const HIGH_MASK = 0x3fffffff;
const SLASH = 0x2f;
const DOT = 0x2e;

export class NameHash {
  readonly #hash: SipHash;

  /** `bits` below 62 makes collisions likely: for stores that test them. */
  constructor(
    key: Buffer,
    private readonly bits = 62,
  ) {
    this.#hash = new SipHash(key);
  }

  of(name: Name): Hash64 {
    const hash = this.#hash.hash(name);
    hash.high &= HIGH_MASK;
    if (this.bits < 32) {
      hash.high = 0;
      hash.low &= 2 ** this.bits - 1;
    }
    if (hash.high === 0 && hash.low < COOKIE_MIN) hash.low += COOKIE_MIN;
    return hash;
  }
}

/** Steps to the next slot of a probe. */
export function nextSlot(at: Hash64): Hash64 {
  if (at.low < 0xffffffff) return { high: at.high, low: at.low + 1 };
  return at.high < HIGH_MASK ? { high: at.high + 1, low: 0 } : { high: 0, low: COOKIE_MIN };
}

/** A name is 1..255 bytes without '/' and NUL, neither "." nor "..". */
export function checkName(name: Name): void {
  const length = name.length;
  if (length > MAX_NAME_BYTES) throw errno('ENAMETOOLONG', `a name has at most ${MAX_NAME_BYTES} bytes`);
  if (length === 0) throw errno('ENOENT', 'a name has at least one byte');
  for (let at = 0; at < length; at++) {
    const byte = name[at]!;
    if (byte === SLASH || byte === 0) throw errno('EINVAL', "a name holds neither '/' nor NUL");
  }
  if (name[0] === DOT && (length === 1 || (length === 2 && name[1] === DOT))) {
    throw errno('EINVAL', '"." and ".." are no names of entries');
  }
}
