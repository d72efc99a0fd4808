// What a station that moved here would say of itself, so that other hosts, and the switches between them, learn its new place.
//
//   IPv4 address known    ARP announcement (RFC 5227 1.1): who has ADDRESS, says ADDRESS, to all
//   IPv6 address known    unsolicited neighbour advertisement, override set (RFC 4861 7.2.6), to all nodes
//   neither               RARP request (RFC 903) of the MAC address, to all: teaches bridges and asks nobody
import { formatMac, type IpAddress, type Prefix } from './addresses.js';
import { ETHER_TYPES, PROTOCOLS } from './config.js';
import { internetChecksum } from './packet-description.js';

export interface MovedStation {
  readonly mac: bigint;
  /** Tag of the frames of its port. */
  readonly vlan?: number;
}

const ETHER_RARP = 0x8035;
const ETHER_VLAN = 0x8100;
const BROADCAST = 0xffff_ffff_ffffn;
const ALL_NODES_MAC = 0x3333_0000_0001n;
const ALL_NODES = Buffer.from('ff020000000000000000000000000001', 'hex');
const REQUEST = 1;
const REVERSE_REQUEST = 3;
const ADVERTISEMENT = 136;
const OVERRIDE = 0x2000_0000;
const TARGET_LINK_ADDRESS = 2;
const HOST_BITS = 128;
/** Shorter frames do not leave an Ethernet interface (IEEE 802.3). */
const FRAME_BYTES_MIN = 60;

/**
 * Frames from `stations`. `addresses` are the port's of the configuration: they are the station's own where it is the only one,
 * or the one that the configuration names (`mac`).
 */
export function announcements(
  stations: readonly MovedStation[],
  {
    mac,
    addresses = [],
  }: { readonly mac?: bigint | undefined; readonly addresses?: readonly Prefix[] | undefined },
): Buffer[] {
  const own = new Set(stations.map((station) => station.mac));
  const known = addresses.filter(({ bits }) => bits === HOST_BITS);
  return stations.flatMap((station) => {
    const named = station.mac === mac || (mac === undefined && own.size === 1);
    if (!named || known.length === 0) return [frame(station, BROADCAST, ETHER_RARP, reverse(station.mac))];
    return known.map((address) =>
      address.version === 4
        ? frame(station, BROADCAST, ETHER_TYPES.arp, arp(station.mac, address))
        : frame(station, ALL_NODES_MAC, ETHER_TYPES.ipv6, advertisement(station.mac, address)),
    );
  });
}

function bytesOf(mac: bigint): Buffer {
  return Buffer.from(formatMac(mac).replaceAll(':', ''), 'hex');
}

function frame({ mac, vlan }: MovedStation, to: bigint, type: number, body: Buffer): Buffer {
  const tag = Buffer.alloc(vlan === undefined ? 0 : 4);
  if (vlan !== undefined) {
    tag.writeUInt16BE(ETHER_VLAN);
    tag.writeUInt16BE(vlan, 2);
  }
  const etherType = Buffer.alloc(2);
  etherType.writeUInt16BE(type);
  const whole = Buffer.concat([bytesOf(to), bytesOf(mac), tag, etherType, body]);
  return Buffer.concat([whole, Buffer.alloc(Math.max(0, FRAME_BYTES_MIN + tag.length - whole.length))]);
}

/** ARP and RARP for Ethernet and IPv4. */
function resolution(operation: number, mac: bigint, target: Buffer, address: Uint8Array): Buffer {
  const head = Buffer.from([0, 1, ETHER_TYPES.ipv4 >> 8, ETHER_TYPES.ipv4 & 0xff, 6, 4, 0, operation]);
  return Buffer.concat([head, bytesOf(mac), address, target, address]);
}

function arp(mac: bigint, { bytes }: IpAddress): Buffer {
  return resolution(REQUEST, mac, Buffer.alloc(6), bytes.subarray(12));
}

function reverse(mac: bigint): Buffer {
  return resolution(REVERSE_REQUEST, mac, bytesOf(mac), Buffer.alloc(4));
}

function advertisement(mac: bigint, { bytes }: IpAddress): Buffer {
  const body = Buffer.alloc(32);
  body[0] = ADVERTISEMENT;
  body.writeUInt32BE(OVERRIDE, 4);
  body.set(bytes, 8);
  body[24] = TARGET_LINK_ADDRESS;
  body[25] = 1;
  body.set(bytesOf(mac), 26);
  const header = Buffer.alloc(40);
  header[0] = 0x60;
  header.writeUInt16BE(body.length, 4);
  header[6] = PROTOCOLS.icmp6;
  header[7] = 255;
  header.set(bytes, 8);
  header.set(ALL_NODES, 24);
  const pseudo = Buffer.alloc(8);
  pseudo.writeUInt32BE(body.length);
  pseudo[7] = PROTOCOLS.icmp6;
  body.writeUInt16BE(internetChecksum(bytes, ALL_NODES, pseudo, body), 2);
  return Buffer.concat([header, body]);
}
