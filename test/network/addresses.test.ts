// Addresses, prefixes, ports and rates as people write them.

import { isIPv6 } from 'node:net';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  formatIp,
  formatMac,
  parseIp,
  parseMac,
  parsePorts,
  parsePrefix,
  parseRate,
} from '../../src/network/addresses.js';

describe('addresses', () => {
  test('a MAC address comes back as it was written', () => {
    expect(formatMac(parseMac('02:00:00:0A:0b:01')!)).toBe('02:00:00:0a:0b:01');
    for (const text of ['02:00:00:00:00', '02-00-00-00-00-01', '02:00:00:00:00:zz'])
      expect(parseMac(text)).toBeUndefined();
  });

  test('IPv4 stands in its IPv6-mapped form', () => {
    const ip = parseIp('10.1.2.3')!;
    expect([...ip.bytes]).toEqual([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 2, 3]);
    expect(formatIp(ip)).toBe('10.1.2.3');
  });

  test('IPv6 is written as RFC 5952 says', () => {
    const cases = [
      ['2001:0db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
      ['::', '::'],
      ['::1', '::1'],
      ['1::', '1::'],
      ['1:0:2:3:4:5:6:7', '1:0:2:3:4:5:6:7'],
      ['::ffff:10.0.0.1', '::ffff:a00:1'],
    ] as const;
    for (const [written, canonical] of cases) expect(formatIp(parseIp(written)!)).toBe(canonical);
    for (const text of ['fe80::1%eth0', '1::2::3', '10.0.0', '']) expect(parseIp(text)).toBeUndefined();
  });

  test('any sixteen bytes survive being written and read', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 16, maxLength: 16 }), (bytes) => {
        const text = formatIp({ version: 6, bytes });
        expect(isIPv6(text)).toBe(true);
        expect([...parseIp(text)!.bytes]).toEqual([...bytes]);
      }),
    );
  });

  test('a prefix counts its bits of the 128 and has none set beyond them', () => {
    expect(parsePrefix('10.0.0.0/8')!.bits).toBe(104);
    expect(parsePrefix('10.0.0.1')!.bits).toBe(128);
    expect(parsePrefix('fd00::/8')!.bits).toBe(8);
    expect(parsePrefix('0.0.0.0/0')!.bits).toBe(96);
    for (const text of ['10.0.0.1/8', '10.0.0.0/33', 'fd00::1/64', '10.0.0.0/8/8', '10.0.0.0/'])
      expect(parsePrefix(text)).toBeUndefined();
  });

  test('ports and rates', () => {
    expect(parsePorts(80)).toEqual({ first: 80, last: 80 });
    expect(parsePorts('8000-8999')).toEqual({ first: 8000, last: 8999 });
    for (const text of ['9-8', '70000', '-1', 'http']) expect(parsePorts(text)).toBeUndefined();
    expect(parseRate('100Mbit')).toBe(100e6);
    expect(parseRate('1.5Gbit/s')).toBe(1.5e9);
    expect(parseRate(64000)).toBe(64000);
    for (const text of ['fast', '0', '-1Mbit', '10MB']) expect(parseRate(text)).toBeUndefined();
  });
});
