// Hashes of names: FNV-1a with the finaliser of MurmurHash3, which spreads similar names well. Not for secrets.

/** 32 bits; `seed` makes independent hashes. */
export function hash32(text: string, seed = 0): number {
  let hash = (0x811c9dc5 ^ seed) >>> 0;
  for (let i = 0; i < text.length; i += 1) {
    hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  }
  hash ^= hash >>> 16;
  hash = Math.imul(hash, 0x85ebca6b);
  hash ^= hash >>> 13;
  hash = Math.imul(hash, 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

/** 52 bits, a number that names a consumer to the selector. */
export function hash52(text: string): number {
  return hash32(text, 0) + (hash32(text, 0x5bd1e995) & 0xfffff) * 2 ** 32;
}
