// A frame as one line for people, as tcpdump would: who, to whom, what. Only what is at hand is read: a frame may be cut short.
import { formatIp } from './addresses.js';
import { describeFate, type PcapngPacket } from './pcapng.js';

const ETHER = { ipv4: 0x0800, arp: 0x0806, ipv6: 0x86dd, vlan: 0x8100, serviceVlan: 0x88a8 } as const;
const PROTOCOL = { icmp: 1, tcp: 6, udp: 17, gre: 47, icmp6: 58 } as const;
const TUNNEL_PORTS: Readonly<Record<number, string>> = { 4789: 'VXLAN', 6081: 'GENEVE' };
const TUNNEL_DEPTH_MAX = 2;
/** Hop-by-hop, routing, destination options. */
const EXTENSIONS = new Set([0, 43, 60]);
const FRAGMENT = 44;
const FLAGS = ['FIN', 'SYN', 'RST', 'PSH', 'ACK', 'URG', 'ECE', 'CWR'] as const;
const ICMP: Readonly<Record<number, string>> = {
  ...{ 0: 'echo reply', 3: 'unreachable', 8: 'echo request', 11: 'time exceeded' },
};
const ICMP6: Readonly<Record<number, string>> = {
  ...{ 1: 'unreachable', 2: 'packet too big', 3: 'time exceeded', 128: 'echo request', 129: 'echo reply' },
  ...{ 133: 'router solicitation', 134: 'router advertisement' },
  ...{ 135: 'neighbour solicitation', 136: 'neighbour advertisement' },
};
const ARROWS = { in: '>>', out: '<<', drop: '><' } as const;

/** `12:00:00.123456789 vm1 >> 10.0.0.1.40000 > 10.0.0.2.80: TCP SYN, length 74`: a line without its end; UTC. */
export function describePacket(packet: PcapngPacket): string {
  const { timeNs, port, direction, length, bytes } = packet;
  const clock = new Date(Number(timeNs / 1_000_000n)).toISOString().slice(11, 19);
  const fraction = String(timeNs % 1_000_000_000n).padStart(9, '0');
  const fate = describeFate(packet);
  const frame = describeFrame(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length));
  return `${clock}.${fraction} ${port} ${ARROWS[direction]} ${frame}, length ${length}${fate === undefined ? '' : `, ${fate}`}`;
}

function describeFrame(frame: Buffer, depth = 0): string {
  if (frame.length < 14) return 'cut short';
  const stations = `${mac(frame, 6)} > ${mac(frame, 0)}`;
  let type = frame.readUInt16BE(12);
  let at = 14;
  let tags = '';
  while ((type === ETHER.vlan || type === ETHER.serviceVlan) && frame.length >= at + 4) {
    tags += `vlan ${frame.readUInt16BE(at) & 0xfff}, `;
    type = frame.readUInt16BE(at + 2);
    at += 4;
  }
  const rest = frame.subarray(at);
  if (type === ETHER.ipv4 && rest.length >= 20) return tags + describeIpv4(rest, depth);
  if (type === ETHER.ipv6 && rest.length >= 40) return tags + describeIpv6(rest, depth);
  if (type === ETHER.arp && rest.length >= 28) return tags + describeArp(rest);
  return `${tags}${stations}, type 0x${type.toString(16).padStart(4, '0')}`;
}

function describeArp(arp: Buffer): string {
  const sender = ip4(arp, 14);
  const target = ip4(arp, 24);
  const operation = arp.readUInt16BE(6);
  if (operation === 1) return `ARP who has ${target}, tell ${sender}`;
  return operation === 2 ? `ARP ${sender} is at ${mac(arp, 8)}` : `ARP operation ${operation}`;
}

function describeIpv4(ip: Buffer, depth: number): string {
  const header = (ip[0]! & 0xf) * 4;
  const fragment = ip.readUInt16BE(6) & 0x1fff;
  const ends = [ip4(ip, 12), ip4(ip, 16)] as const;
  if (fragment !== 0) return `${ends.join(' > ')}: fragment at ${fragment * 8}`;
  return describeTransport(ip[9]!, ip.subarray(header), ends, depth);
}

function describeIpv6(ip: Buffer, depth: number): string {
  const ends = [ip6(ip, 8), ip6(ip, 24)] as const;
  let protocol = ip[6]!;
  let at = 40;
  while (EXTENSIONS.has(protocol) && ip.length >= at + 8) {
    protocol = ip[at]!;
    at += (ip[at + 1]! + 1) * 8;
  }
  if (protocol === FRAGMENT && ip.length >= at + 8) {
    const offset = ip.readUInt16BE(at + 2) & 0xfff8;
    if (offset !== 0) return `${ends.join(' > ')}: fragment at ${offset}`;
    protocol = ip[at]!;
    at += 8;
  }
  return describeTransport(protocol, ip.subarray(at), ends, depth);
}

function describeTransport(
  protocol: number,
  body: Buffer,
  ends: readonly [string, string],
  depth: number,
): string {
  const plain = ends.join(' > ');
  if ((protocol === PROTOCOL.tcp || protocol === PROTOCOL.udp) && body.length >= 8) {
    const destination = body.readUInt16BE(2);
    const flow = `${ends[0]}.${body.readUInt16BE(0)} > ${ends[1]}.${destination}`;
    if (protocol === PROTOCOL.tcp) return `${flow}: TCP ${describeTcp(body)}`;
    const tunnel = depth < TUNNEL_DEPTH_MAX ? TUNNEL_PORTS[destination] : undefined;
    if (tunnel === undefined || body.length < 16) return `${flow}: UDP`;
    const options = tunnel === 'GENEVE' ? (body[8]! & 0x3f) * 4 : 0;
    const inner = describeFrame(body.subarray(16 + options), depth + 1);
    return `${flow}: ${tunnel} vni ${body.readUIntBE(12, 3)}, ${inner}`;
  }
  if (protocol === PROTOCOL.icmp && body.length >= 2) return `${plain}: ICMP ${kind(ICMP, body)}`;
  if (protocol === PROTOCOL.icmp6 && body.length >= 2) return `${plain}: ICMPv6 ${kind(ICMP6, body)}`;
  return `${plain}: ${protocol === PROTOCOL.gre ? 'GRE' : `protocol ${protocol}`}`;
}

function describeTcp(tcp: Buffer): string {
  if (tcp.length < 20) return 'cut short';
  const flags = FLAGS.filter((_, bit) => (tcp[13]! & (1 << bit)) !== 0).join(' ');
  const acknowledges = (tcp[13]! & 0x10) === 0 ? '' : `, ack ${tcp.readUInt32BE(8)}`;
  return `${flags}, seq ${tcp.readUInt32BE(4)}${acknowledges}`;
}

function kind(names: Readonly<Record<number, string>>, body: Buffer): string {
  return names[body[0]!] ?? `type ${body[0]}, code ${body[1]}`;
}

function mac(bytes: Buffer, at: number): string {
  return bytes.toString('hex', at, at + 6).replace(/(..)(?=.)/g, '$1:');
}

function ip4(bytes: Buffer, at: number): string {
  return bytes.subarray(at, at + 4).join('.');
}

function ip6(bytes: Buffer, at: number): string {
  return formatIp({ version: 6, bytes: bytes.subarray(at, at + 16) });
}
