// Matches as the native rule table wants them: eight words and a mask (native/switch/match.h draws them). A list in a match
// means any of its items, so one match may become several.
import assert from 'node:assert/strict';
import { type IpAddress, maskByte, type PortRange, type Prefix } from './addresses.js';
import type { MatchConfig } from './config.js';

export const ANY_PORT: PortRange = { first: 0, last: 0xffff };
export const ETHER_IPV4 = 0x0800;
export const ETHER_IPV6 = 0x86dd;
const ICMP = 1;
const ICMP6 = 58;
/** More than this many combinations of lists in one match are refused. */
export const MATCHES_MAX = 4096;

/** Bits of the state field. */
const STATE = { new: 2, established: 4, related: 8, invalid: 16 } as const;
const SHAPE = { ipv4: 1, ipv6: 2, fragment: 4 } as const;
const TAGGED = 1 << 12;

/** Words as halves of 32 bits, the lower first: a configuration of many rules would leave millions of BigInts behind. */
export class NativeMatch {
  readonly value = new Uint32Array(16);
  readonly mask = new Uint32Array(16);
  sourcePorts = ANY_PORT;
  destinationPorts = ANY_PORT;

  copy(): NativeMatch {
    const twin = new NativeMatch();
    twin.value.set(this.value);
    twin.mask.set(this.mask);
    twin.sourcePorts = this.sourcePorts;
    twin.destinationPorts = this.destinationPorts;
    return twin;
  }

  /** `bits` of `value` at `shift` of a word, all of them in one half; `mask` narrows which of them are looked at. */
  field(word: number, shift: number, value: number, bits: number, mask = 0xffff_ffff >>> (32 - bits)): this {
    const half = 2 * word + (shift >> 5);
    const at = shift & 31;
    assert(bits > 0 && at + bits <= 32);
    this.mask[half]! |= mask << at;
    this.value[half]! |= (value & mask) << at;
    return this;
  }

  ingress(port: number): this {
    return this.field(0, 48, port, 16);
  }
  protocol(protocol: number): this {
    return this.field(0, 8, protocol, 8);
  }
  etherType(type: number): this {
    return this.field(0, 16, type, 16);
  }
  ipVersion(version: 4 | 6): this {
    const bit = version === 4 ? SHAPE.ipv4 : SHAPE.ipv6;
    return this.field(1, 0, bit, 8, bit);
  }
  mac(which: 'source' | 'destination', mac: bigint): this {
    const word = which === 'source' ? 2 : 3;
    return this.field(word, 16, Number(mac & 0xffffn), 16).field(word, 32, Number(mac >> 16n), 32);
  }
  source(prefix: Prefix): this {
    return this.#address(4, prefix);
  }
  destination(prefix: Prefix): this {
    return this.#address(6, prefix);
  }
  ports(which: 'source' | 'destination', range: PortRange): this {
    if (range.first === range.last) return this.field(which === 'source' ? 2 : 3, 0, range.first, 16);
    if (which === 'source') this.sourcePorts = range;
    else this.destinationPorts = range;
    return this;
  }

  /** Bytes in the order of the wire, the first the highest of its word. */
  #address(word: number, prefix: Prefix): this {
    this.ipVersion(prefix.version);
    for (let i = 0; i < 16; i += 1)
      this.field(word + (i >> 3), 56 - 8 * (i & 7), prefix.bytes[i]!, 8, maskByte(prefix.bits, i));
    return this;
  }
}

/** Every choice of `items` applied to every match so far, which are used up. */
function each<Item>(
  matches: readonly NativeMatch[],
  items: readonly Item[] | undefined,
  apply: (match: NativeMatch, item: Item) => void,
): readonly NativeMatch[] {
  if (items === undefined) return matches;
  if (items.length === 1) {
    for (const match of matches) apply(match, items[0]!);
    return matches;
  }
  return matches.flatMap((match) =>
    items.map((item) => {
      const twin = match.copy();
      apply(twin, item);
      return twin;
    }),
  );
}

export interface MatchNames {
  port(name: string): number;
  /** Its index. */
  network(name: string): number;
}

/** How many native matches a configured one becomes. */
export function matchCount(config: MatchConfig): number {
  const lists = [
    config.port,
    config.protocol,
    config.source,
    config.destination,
    config.sourcePorts,
    config.destinationPorts,
    config.state,
  ];
  return lists.reduce((product, list) => product * (list?.length ?? 1), 1);
}

export function nativeMatches(config: MatchConfig, names: MatchNames): readonly NativeMatch[] {
  const base = new NativeMatch();
  if (config.network !== undefined) base.field(1, 32, names.network(config.network), 32);
  if (config.vlan !== undefined) base.field(0, 32, config.vlan | TAGGED, 16);
  if (config.sourceMac !== undefined) base.mac('source', config.sourceMac);
  if (config.destinationMac !== undefined) base.mac('destination', config.destinationMac);
  if (config.etherType !== undefined) base.etherType(config.etherType);
  if (config.icmpType !== undefined) base.field(2, 0, config.icmpType, 16);
  if (config.icmpCode !== undefined) base.field(3, 0, config.icmpCode, 16);
  if (config.tcpFlags !== undefined) base.field(0, 0, config.tcpFlags.value, 8, config.tcpFlags.mask);
  if (config.mark !== undefined) base.field(1, 16, config.mark, 16);
  if (config.fragment !== undefined)
    base.field(1, 0, config.fragment ? SHAPE.fragment : 0, 8, SHAPE.fragment);
  let matches: readonly NativeMatch[] = [base];
  matches = each(matches, config.port, (match, port) => match.ingress(names.port(port)));
  matches = each(matches, config.protocol, withProtocol);
  matches = each(matches, config.source, (match, prefix) => match.source(prefix));
  matches = each(matches, config.destination, (match, prefix) => match.destination(prefix));
  matches = each(matches, config.sourcePorts, (match, range) => match.ports('source', range));
  matches = each(matches, config.destinationPorts, (match, range) => match.ports('destination', range));
  return each(matches, config.state, (match, state) => match.field(1, 8, STATE[state], 8, STATE[state]));
}

/** ICMP numbers belong to one IP version each. */
export function withProtocol(match: NativeMatch, protocol: number): void {
  match.protocol(protocol);
  if (protocol === ICMP) match.ipVersion(4);
  if (protocol === ICMP6) match.ipVersion(6);
}

export function hostPrefix(address: IpAddress): Prefix {
  return { ...address, bits: 128 };
}
