// Sizes as people write them. K, M, G, T and KiB, MiB, ... are powers of 1024; kB, MB, GB, TB are powers of 1000, as in
// the coreutils.

const UNITS: Readonly<Record<string, number>> = { '': 0, k: 1, m: 2, g: 3, t: 4, p: 5 };

/** Bytes, a whole number; undefined when the text is not a size. */
export function parseSize(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)\s*([kmgtp]?)(ib|b)?$/i.exec(text.trim());
  if (match === null) return undefined;
  const [, number = '', prefix = '', suffix = ''] = match;
  if (prefix === '' && suffix.toLowerCase() === 'ib') return undefined;
  const base = suffix.toLowerCase() === 'b' ? 1000 : 1024;
  const bytes = Math.round(Number(number) * base ** UNITS[prefix.toLowerCase()]!);
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}

/** `1.5 GiB`: three significant digits. */
export function formatSize(bytes: number): string {
  const names = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let value = bytes;
  let index = 0;
  while (Math.abs(value) >= 1000 && index < names.length - 1) {
    value /= 1024;
    index += 1;
  }
  const digits = index === 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return `${value.toFixed(digits)} ${names[index]}`;
}
