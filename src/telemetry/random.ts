// Chance, injected: a seeded generator makes every jitter, choice and simulated fault repeatable from one number.
// xoshiro128** 1.1 (Blackman and Vigna, "Scrambled linear pseudorandom number generators", 2021), its state filled by
// splitmix32. Not for secrets.
import { randomBytes } from 'node:crypto';

export interface Random {
  /** Uniform in 0 .. 2^32 - 1. */
  next32(): number;
  /** Uniform in [0, 1), 32 bits of it. */
  uniform(): number;
  /** Uniform in 0 .. limit - 1, without modulo bias; 1 <= limit <= 2^32. */
  below(limit: number): number;
}

abstract class Generator implements Random {
  abstract next32(): number;

  uniform(): number {
    return this.next32() / 2 ** 32;
  }

  below(limit: number): number {
    if (!(Number.isInteger(limit) && limit >= 1 && limit <= 2 ** 32)) throw new RangeError(`below(${limit})`);
    const fair = 2 ** 32 - (2 ** 32 % limit);
    for (;;) {
      const value = this.next32();
      if (value < fair) return value % limit;
    }
  }
}

class Xoshiro extends Generator {
  readonly #state = new Uint32Array(4);

  constructor(seed: number) {
    super();
    let mix = seed >>> 0;
    for (let i = 0; i < 4; i += 1) {
      mix = (mix + 0x9e3779b9) >>> 0;
      let z = mix;
      z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
      z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
      this.#state[i] = z ^ (z >>> 16);
    }
  }

  next32(): number {
    const s = this.#state;
    const [s0, s1, s2, s3] = [s[0]!, s[1]!, s[2]!, s[3]!];
    const result = Math.imul(rotate(Math.imul(s1, 5), 7), 9) >>> 0;
    const t = s1 << 9;
    const mixed2 = s2 ^ s0;
    const mixed3 = s3 ^ s1;
    s[1] = s1 ^ mixed2;
    s[0] = s0 ^ mixed3;
    s[2] = mixed2 ^ t;
    s[3] = rotate(mixed3, 11);
    return result;
  }
}

function rotate(value: number, bits: number): number {
  return (value << bits) | (value >>> (32 - bits));
}

class SystemRandom extends Generator {
  next32(): number {
    return randomBytes(4).readUInt32LE(0);
  }
}

/** The same seed (an integer, taken modulo 2^32) gives the same sequence, on every machine. */
export function seededRandom(seed: number): Random {
  return new Xoshiro(seed);
}

export const systemRandom: Random = new SystemRandom();
