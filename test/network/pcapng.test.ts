// The writer of capture files against a reader written from the draft, and a packet as a line of text.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { CaptureSummary } from '../../src/network/capture.js';
import { describePacket } from '../../src/network/describe-packet.js';
import { buildFrame } from '../../src/network/packet-description.js';
import { type PcapngPacket, PcapngWriter } from '../../src/network/pcapng.js';

interface Block {
  readonly type: number;
  readonly body: Buffer;
}

function blocksOf(file: Buffer): Block[] {
  const blocks: Block[] = [];
  for (let at = 0; at < file.length; ) {
    const length = file.readUInt32LE(at + 4);
    expect(length % 4).toBe(0);
    expect(file.readUInt32LE(at + length - 4)).toBe(length);
    blocks.push({ type: file.readUInt32LE(at), body: file.subarray(at + 8, at + length - 4) });
    at += length;
  }
  return blocks;
}

function optionsOf(bytes: Buffer): Map<number, Buffer> {
  const options = new Map<number, Buffer>();
  let at = 0;
  for (;;) {
    const code = bytes.readUInt16LE(at);
    const length = bytes.readUInt16LE(at + 2);
    if (code === 0) break;
    options.set(code, bytes.subarray(at + 4, at + 4 + length));
    at += 4 + ((length + 3) & ~3);
  }
  expect(at + 4).toBe(bytes.length);
  return options;
}

const time = (bytes: Buffer): bigint =>
  (BigInt(bytes.readUInt32LE(0)) << 32n) | BigInt(bytes.readUInt32LE(4));

const packets: fc.Arbitrary<PcapngPacket[]> = fc.array(
  fc.record({
    timeNs: fc.bigInt({ min: 0n, max: (1n << 63n) - 1n }),
    port: fc.constantFrom('a', 'vm1', 'wire-ä'),
    direction: fc.constantFrom('in', 'out', 'drop'),
    length: fc.nat(65_000),
    bytes: fc.uint8Array({ maxLength: 200 }),
    drop: fc.constant({ name: 'rule', sentence: 'a rule says drop' }),
    rule: fc.string({ unit: 'binary', maxLength: 20 }),
    segment: fc.nat(1448),
  }),
  { maxLength: 20 },
);

test('a reader gets back what was written, whatever it was', () => {
  fc.assert(
    fc.property(packets, (written) => {
      const blocks: Uint8Array[] = [];
      const writer = new PcapngWriter({ write: (block) => blocks.push(block) }, { snaplen: 200 });
      for (const packet of written) writer.write(packet);
      const counts = { received: 5, transmitted: 6, dropped: 7, captured: 8, lost: 9 };
      const ports = Object.fromEntries(written.map(({ port }) => [port, counts]));
      writer.end({ packets: 0, lost: 9, startNs: 1n, endNs: 1n << 40n, ports });

      const [section, ...rest] = blocksOf(Buffer.concat(blocks));
      expect(section!.type).toBe(0x0a0d0d0a);
      expect(section!.body.readUInt32LE(0)).toBe(0x1a2b3c4d);
      expect(optionsOf(section!.body.subarray(16)).get(4)!.toString()).toBe('penstock');
      const names: string[] = [];
      const read: PcapngPacket[] = [];
      for (const { type, body } of rest) {
        if (type === 1) {
          const options = optionsOf(body.subarray(8));
          expect([body.readUInt16LE(0), body.readUInt32LE(4), options.get(9)![0]]).toEqual([1, 200, 9]);
          names.push(options.get(2)!.toString());
        } else if (type === 6) {
          const captured = body.readUInt32LE(12);
          const options = optionsOf(body.subarray(20 + ((captured + 3) & ~3)));
          const original = written[read.length]!;
          expect(options.get(2)!.readUInt32LE(0)).toBe(original.direction === 'out' ? 2 : 1);
          expect(options.get(1)!.toString()).toContain(`rule ${original.rule}`);
          read.push({
            ...original,
            port: names[body.readUInt32LE(0)]!,
            timeNs: time(body.subarray(4)),
            length: body.readUInt32LE(16),
            bytes: new Uint8Array(body.subarray(20, 20 + captured)),
          });
        } else {
          expect(type).toBe(5);
          const options = optionsOf(body.subarray(12));
          expect([...[4, 5, 7, 8].map((code) => Number(options.get(code)!.readBigUInt64LE()))]).toEqual([
            11, 7, 9, 8,
          ]);
          expect([time(options.get(2)!), time(options.get(3)!)]).toEqual([1n, 1n << 40n]);
        }
      }
      expect(read).toEqual(written);
      expect(new Set(names).size).toBe(names.length);
      expect(rest.filter(({ type }) => type === 5).length).toBe(names.length);
    }),
  );
});

test('a port that showed no packet has its interface and its counts all the same', () => {
  const blocks: Uint8Array[] = [];
  const writer = new PcapngWriter({ write: (block) => blocks.push(block) });
  const counts = { received: 0, transmitted: 0, dropped: 0, captured: 0, lost: 0 };
  const summary: CaptureSummary = { packets: 0, lost: 0, startNs: 0n, endNs: 0n, ports: { idle: counts } };
  writer.end(summary);
  expect(blocksOf(Buffer.concat(blocks)).map(({ type }) => type)).toEqual([0x0a0d0d0a, 1, 5]);
});

const plain = { timeNs: 3_600_000_000_001n, port: 'vm1', direction: 'in' } as const;
const line = (bytes: Uint8Array, more: Partial<PcapngPacket> = {}): string =>
  describePacket({ ...plain, length: bytes.length, bytes, ...more });

test('a packet is one line that says who, to whom and what', () => {
  const at = '01:00:00.000000001 vm1';
  const tcp = buildFrame({ flow: 'tcp 10.0.0.1:40000 > 10.0.0.2:80', flags: 'syn,ack', vlan: 7 });
  expect(line(tcp)).toBe(
    `${at} >> vlan 7, 10.0.0.1.40000 > 10.0.0.2.80: TCP SYN ACK, seq 1, ack 0, length 58`,
  );
  expect(line(buildFrame({ flow: 'udp [fd00::1]:5 > [fd00::2]:53', payload: 3 }), { direction: 'out' })).toBe(
    `${at} << fd00::1.5 > fd00::2.53: UDP, length 65`,
  );
  const drop = { name: 'rule', sentence: 'a rule says drop' };
  expect(
    line(buildFrame({ flow: 'icmp 10.0.0.1 > 10.0.0.2' }), { direction: 'drop', drop, rule: 'no-ping' }),
  ).toBe(
    `${at} >< 10.0.0.1 > 10.0.0.2: ICMP echo request, length 42, dropped: rule (a rule says drop), rule no-ping`,
  );
  const arp = Buffer.from(
    `ffffffffffff0200000000010806000108000604000102000000000${'1'}0a000001000000000000${'0a000002'}`,
    'hex',
  );
  expect(line(arp)).toBe(`${at} >> ARP who has 10.0.0.2, tell 10.0.0.1, length 42`);
  const inner = buildFrame({ flow: 'icmp 10.1.0.1 > 10.1.0.2' });
  const outer = buildFrame({ flow: 'udp 172.16.0.1:50000 > 172.16.0.2:4789', payload: 8 + inner.length });
  outer.set(Buffer.from('0800000000002a00', 'hex'), 42);
  outer.set(inner, 50);
  expect(line(outer)).toContain(
    '172.16.0.1.50000 > 172.16.0.2.4789: VXLAN vni 42, 10.1.0.1 > 10.1.0.2: ICMP echo request',
  );
});

test('a frame that is cut anywhere, or is noise, is still a line', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.uint8Array({ maxLength: 120 }),
        fc
          .tuple(fc.constantFrom('0800', '86dd', '0806', '8100'), fc.uint8Array({ maxLength: 100 }))
          .map(([type, rest]) => Buffer.concat([Buffer.alloc(12), Buffer.from(type, 'hex'), rest])),
        fc.nat(60).map((length) => buildFrame({ flow: 'tcp 10.0.0.1:1 > 10.0.0.2:2' }).subarray(0, length)),
      ),
      (bytes) => {
        expect(line(bytes)).toMatch(/^01:00:00\.000000001 vm1 >> [^\n]+, length \d+$/);
      },
    ),
    { numRuns: 500 },
  );
});
