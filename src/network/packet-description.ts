// A packet described in words becomes a frame, for `trace`: `tcp 10.0.0.1:40000 > 10.0.0.2:80`, MAC addresses and tag beside it.
//
// Lengths and checksums are right (RFC 1071), everything else is plain: TTL 64, no options, TCP flags SYN unless given.
import { type IpAddress, parseIp, parseMac } from './addresses.js';
import { ETHER_TYPES, PROTOCOLS, TCP_FLAGS } from './config.js';
import { NetworkError } from './errors.js';

export interface PacketDescription {
  /** `tcp|udp|icmp SOURCE[:PORT] > DESTINATION[:PORT]`, IPv6 with ports in brackets. */
  readonly flow: string;
  readonly sourceMac?: string;
  readonly destinationMac?: string;
  readonly vlan?: number;
  /** Such as `syn,ack`; TCP only. */
  readonly flags?: string;
  /** Bytes after the transport header. */
  readonly payload?: number;
}

const PAYLOAD_MAX = 60_000;
const ECHO_REQUEST = { 4: 8, 6: 128 } as const;

interface End {
  readonly address: IpAddress;
  readonly port: number;
}

function bad(message: string): never {
  throw new NetworkError('CONFIG', message);
}

function parseEnd(text: string): End {
  const match = /^(?:\[([^\]]+)\]|([^:]+|[^[\]]*::?[^[\]]*))(?::(\d{1,5}))?$/.exec(text);
  const bare = parseIp(text);
  if (bare !== undefined) return { address: bare, port: 0 };
  const address = parseIp(match?.[1] ?? match?.[2] ?? '');
  const port = Number(match?.[3] ?? 0);
  if (address === undefined || port > 0xffff) bad(`${JSON.stringify(text)} is no ADDRESS or ADDRESS:PORT`);
  return { address, port };
}

/** RFC 1071; each part but the last has an even length. */
export function internetChecksum(...parts: readonly Uint8Array[]): number {
  let sum = 0;
  for (const part of parts)
    for (let i = 0; i < part.length; i += 2) sum += (part[i]! << 8) | (part[i + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

function addressBytes({ version, bytes }: IpAddress): Uint8Array {
  return version === 4 ? bytes.subarray(12) : bytes;
}

function transport(kind: string, from: End, to: End, flags: string, payload: number): Buffer {
  if (kind === 'icmp') {
    const icmp = Buffer.alloc(8 + payload);
    icmp[0] = ECHO_REQUEST[from.address.version];
    icmp.writeUInt16BE(1, 4);
    icmp.writeUInt16BE(1, 6);
    return icmp;
  }
  if (kind === 'udp') {
    const udp = Buffer.alloc(8 + payload);
    udp.writeUInt16BE(from.port, 0);
    udp.writeUInt16BE(to.port, 2);
    udp.writeUInt16BE(udp.length, 4);
    return udp;
  }
  const tcp = Buffer.alloc(20 + payload);
  tcp.writeUInt16BE(from.port, 0);
  tcp.writeUInt16BE(to.port, 2);
  tcp.writeUInt32BE(1, 4);
  tcp[12] = 5 << 4;
  for (const flag of flags.split(/[\s,]+/).filter((word) => word !== ''))
    tcp[13]! |= TCP_FLAGS[flag as keyof typeof TCP_FLAGS] ?? bad(`unknown TCP flag "${flag}"`);
  tcp.writeUInt16BE(0xffff, 14);
  return tcp;
}

/** Throws NetworkError CONFIG that says what is wrong with the words. */
export function buildFrame(description: PacketDescription): Buffer {
  const { flow, sourceMac = '02:00:00:00:00:01', destinationMac = '02:00:00:00:00:02', vlan } = description;
  const words = /^(tcp|udp|icmp)\s+(\S+)\s*>\s*(\S+)$/.exec(flow.trim());
  if (words === null) bad(`expected "tcp|udp|icmp SOURCE > DESTINATION", got ${JSON.stringify(flow)}`);
  const [, kind = '', source = '', destination = ''] = words;
  const from = parseEnd(source);
  const to = parseEnd(destination);
  const { version } = from.address;
  if (version !== to.address.version) bad('source and destination are of different IP versions');
  const payload = description.payload ?? 0;
  if (payload < 0 || payload > PAYLOAD_MAX) bad(`a payload has 0 to ${PAYLOAD_MAX} bytes`);
  const body = transport(kind, from, to, description.flags ?? 'syn', payload);
  const protocol =
    kind === 'icmp' && version === 6 ? PROTOCOLS.icmp6 : PROTOCOLS[kind as 'tcp' | 'udp' | 'icmp'];
  const ends = [addressBytes(from.address), addressBytes(to.address)];

  const field = { tcp: 16, udp: 6, icmp: 2 }[kind]!;
  const pseudo = Buffer.alloc(8);
  pseudo.writeUInt32BE(body.length, 0);
  pseudo[7] = protocol;
  const covered = kind === 'icmp' && version === 4 ? [body] : [...ends, pseudo, body];
  const sum = internetChecksum(...covered);
  body.writeUInt16BE(sum === 0 && kind === 'udp' ? 0xffff : sum, field);

  const header = Buffer.alloc(version === 4 ? 20 : 40);
  if (version === 4) {
    header[0] = 0x45;
    header.writeUInt16BE(header.length + body.length, 2);
    header.writeUInt16BE(0x4000, 6);
    header[8] = 64;
    header[9] = protocol;
    header.set(ends[0]!, 12);
    header.set(ends[1]!, 16);
    header.writeUInt16BE(internetChecksum(header), 10);
  } else {
    header[0] = 0x60;
    header.writeUInt16BE(body.length, 4);
    header[6] = protocol;
    header[7] = 64;
    header.set(ends[0]!, 8);
    header.set(ends[1]!, 24);
  }
  const mac = (text: string): Buffer => {
    const parsed = parseMac(text) ?? bad(`${JSON.stringify(text)} is no MAC address`);
    return Buffer.from(parsed.toString(16).padStart(12, '0'), 'hex');
  };
  const type = Buffer.alloc(vlan === undefined ? 2 : 6);
  if (vlan !== undefined) {
    type.writeUInt16BE(0x8100, 0);
    type.writeUInt16BE(vlan, 2);
  }
  type.writeUInt16BE(version === 4 ? ETHER_TYPES.ipv4 : ETHER_TYPES.ipv6, type.length - 2);
  return Buffer.concat([mac(destinationMac), mac(sourceMac), type, header, body]);
}
