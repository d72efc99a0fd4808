// MAC and IP addresses, prefixes, ports and rates: as people write them, and as the native tables want them.
//
// An IP address is 16 bytes; IPv4 stands in its IPv6-mapped form (RFC 4291 2.5.5.2), so that one comparison serves both. A
// prefix counts its bits of the 128: 10.0.0.0/8 has 104.
import { isIPv4, isIPv6 } from 'node:net';

export interface IpAddress {
  readonly version: 4 | 6;
  readonly bytes: Uint8Array;
}

export interface Prefix extends IpAddress {
  /** Of the 128. */
  readonly bits: number;
}

export interface PortRange {
  readonly first: number;
  readonly last: number;
}

const MAPPED_BITS = 96;

/** The 48 bits of `02:00:00:00:00:01`; undefined when the text is none. */
export function parseMac(text: string): bigint | undefined {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text)) return undefined;
  return BigInt(`0x${text.replaceAll(':', '')}`);
}

export function formatMac(mac: bigint): string {
  return mac
    .toString(16)
    .padStart(12, '0')
    .replace(/..(?=.)/g, '$&:');
}

export function parseIp(text: string): IpAddress | undefined {
  if (isIPv4(text)) return { version: 4, bytes: mapped(text.split('.').map(Number)) };
  if (!isIPv6(text) || text.includes('%')) return undefined;
  return {
    version: 6,
    bytes: Uint8Array.from(groupsOf(text).flatMap((group) => [group >> 8, group & 0xff])),
  };
}

function mapped(ipv4: readonly number[]): Uint8Array {
  return Uint8Array.from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ...ipv4]);
}

/** The eight groups of valid IPv6 text: `::` filled in, a dotted tail turned into two. */
function groupsOf(text: string): number[] {
  const dotted = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(text);
  let plain = text;
  if (dotted !== null) {
    const [a = 0, b = 0, c = 0, d = 0] = dotted[2]!.split('.').map(Number);
    plain = `${dotted[1]}${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`;
  }
  const [head = '', tail] = plain.split('::');
  const numbers = (part: string): number[] =>
    part === '' ? [] : part.split(':').map((group) => Number.parseInt(group, 16));
  const before = numbers(head);
  if (tail === undefined) return before;
  const after = numbers(tail);
  return [...before, ...new Array<number>(8 - before.length - after.length).fill(0), ...after];
}

/** In the form of RFC 5952. */
export function formatIp({ version, bytes }: IpAddress): string {
  if (version === 4) return bytes.subarray(12).join('.');
  const groups = Array.from({ length: 8 }, (_, i) => (bytes[2 * i]! << 8) | bytes[2 * i + 1]!);
  let best = { at: -1, length: 1 };
  for (let at = 0; at < 8; at += 1) {
    let length = 0;
    while (at + length < 8 && groups[at + length] === 0) length += 1;
    if (length > best.length) best = { at, length };
  }
  const text = (part: readonly number[]): string => part.map((group) => group.toString(16)).join(':');
  if (best.at < 0) return text(groups);
  return `${text(groups.slice(0, best.at))}::${text(groups.slice(best.at + best.length))}`;
}

/** `10.0.0.0/8`, `fd00::/8`, or one address. Bits beyond the length must be zero: `10.0.0.1/8` is a mistake. */
export function parsePrefix(text: string): Prefix | undefined {
  const [address = '', length, ...rest] = text.split('/');
  const ip = parseIp(address);
  if (ip === undefined || rest.length > 0) return undefined;
  const own = ip.version === 4 ? 32 : 128;
  if (length !== undefined && !/^\d{1,3}$/.test(length)) return undefined;
  const given = length === undefined ? own : Number(length);
  if (given > own) return undefined;
  const bits = given + (ip.version === 4 ? MAPPED_BITS : 0);
  const masked = ip.bytes.map((byte, i) => byte & maskByte(bits, i));
  return masked.every((byte, i) => byte === ip.bytes[i]) ? { ...ip, bits } : undefined;
}

/** Byte `index` of the mask of a prefix of `bits` bits. */
export function maskByte(bits: number, index: number): number {
  const rest = Math.min(8, Math.max(0, bits - 8 * index));
  return (0xff00 >> rest) & 0xff;
}

/** `80` or `8000-8999`. */
export function parsePorts(value: string | number): PortRange | undefined {
  const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(String(value));
  if (match === null) return undefined;
  const first = Number(match[1]);
  const last = match[2] === undefined ? first : Number(match[2]);
  return first <= last && last <= 0xffff ? { first, last } : undefined;
}

const RATE_UNITS: Readonly<Record<string, number>> = { '': 1, k: 1e3, m: 1e6, g: 1e9 };

/** Bits a second: `100Mbit`, `1.5Gbit/s`, or a number. */
export function parseRate(value: string | number): number | undefined {
  if (typeof value === 'number') return Number.isSafeInteger(value) && value > 0 ? value : undefined;
  const match = /^(\d+(?:\.\d+)?)\s*([kmg]?)(?:bit|bps)?(?:\/s)?$/i.exec(value.trim());
  if (match === null) return undefined;
  const rate = Math.round(Number(match[1]) * RATE_UNITS[match[2]!.toLowerCase()]!);
  return rate > 0 && Number.isSafeInteger(rate) ? rate : undefined;
}
