// Packets of a running switch for an onlooker, and the files he makes of them, read by tshark.
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { CAPTURE, captureLayout, dropReasons } from '../../bindings/capture.js';
import type { Capture, CapturedPacket } from '../../src/network/capture.js';
import { PcapngWriter } from '../../src/network/pcapng.js';
import { Switch } from '../../src/network/switch.js';
import { NetworkLab, networkUnavailable } from '../support/network-lab.js';

const TIMEOUT_MS = 180_000;
const unavailable = networkUnavailable(['iperf3', 'ping', 'tshark']);

test('the layout here is the layout there', () => {
  const camel = (name: string) => name.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase());
  const record: Record<string, number> = {};
  for (const [name, value] of Object.entries(captureLayout)) {
    const found = /^(?:sizeof )?CaptureRecord(?:\.(\w+))?$/.exec(name);
    if (found !== null) record[camel(found[1] ?? 'size')] = value;
  }
  expect(record).toEqual(CAPTURE.record);
  const { kCapturePacket, kCaptureHeaderBytes, kCaptureHeadOffset, kCaptureRecordsOffset } = captureLayout;
  expect([CAPTURE.packet, CAPTURE.header, CAPTURE.head, CAPTURE.records]).toEqual([
    ...[kCapturePacket, kCaptureHeaderBytes, kCaptureHeadOffset, kCaptureRecordsOffset],
  ]);
  expect(dropReasons[0]).toEqual({ name: 'none', sentence: 'not dropped' });
});

describe.skipIf(unavailable !== undefined)('a capture', () => {
  let lab: NetworkLab;
  let plane: Switch;

  beforeAll(async () => {
    lab = new NetworkLab('a', 'b');
    // Nobody but us says anything.
    for (const name of ['a', 'b'])
      await lab.run(name, 'sysctl', '-qw', 'net.ipv6.conf.default.disable_ipv6=1');
    plane = await Switch.start({ workers: 2 });
    const tap = (name: string) => ({ tap: 'eth0', namespace: lab.path(name), network: 'blue' });
    const telnet = { protocol: 'tcp', destinationPorts: 23 } as const;
    await plane.apply({
      networks: { blue: {} },
      ports: { a: tap('a'), b: tap('b') },
      rules: [{ name: 'no-telnet', match: telnet, action: 'drop' }],
    });
    for (const [i, name] of ['a', 'b'].entries()) lab.ip(name, `addr add 10.88.0.${i + 1}/24 dev eth0`);
    await lab.serveIperf('b');
  }, TIMEOUT_MS);

  afterAll(async () => {
    await plane?.stop();
    await lab?.[Symbol.asyncDispose]();
  });

  const begun = async (...options: Parameters<Switch['capture']>): Promise<Capture> => {
    const capture = plane.capture(...options);
    await capture.started();
    return capture;
  };
  const all = async (capture: Capture): Promise<CapturedPacket[]> => {
    const packets: CapturedPacket[] = [];
    for await (const packet of capture) packets.push(packet);
    return packets;
  };
  const telnet = () =>
    lab.run('a', 'timeout', '2', 'bash', '-c', 'exec 3<>/dev/tcp/10.88.0.2/23').catch(() => undefined);

  test('becomes a file that tshark reads: interfaces, reasons, superframes, right checksums', {
    timeout: TIMEOUT_MS,
  }, async () => {
    await using capture = await begun({ ports: ['*'], drops: true });
    expect(plane.counters().captures).toBe(1);
    const reading = all(capture);
    await lab.run('a', 'ping', '-c', '1', '10.88.0.2');
    await lab.iperf('a', '10.88.0.2', '-n', '2M');
    await telnet();
    await capture.stop();
    const packets = await reading;
    const summary = await capture.stop();
    expect(plane.counters().captures).toBe(0);
    expect(summary).toMatchObject({ packets: packets.length, lost: 0 });

    const file = join(lab.directory, 'all.pcapng');
    const blocks: Uint8Array[] = [];
    const writer = new PcapngWriter({ write: (block) => blocks.push(block) });
    for (const packet of packets) writer.write(packet);
    writer.end(summary);
    writeFileSync(file, Buffer.concat(blocks));
    const fields = ['frame.interface_name', 'frame.packet_flags_direction', 'frame.len', 'frame.comment'];
    fields.push('tcp.checksum.status', 'ip.checksum.status', '_ws.malformed', '_ws.expert.severity');
    const checks = ['tcp.check_checksum', 'ip.check_checksum'].flatMap((check) => ['-o', `${check}:TRUE`]);
    const rows = execFileSync('tshark', [
      ...['-r', file, ...checks, '-T', 'fields', '-E', 'separator=;'],
      ...fields.flatMap((field) => ['-e', field]),
    ])
      .toString()
      .trimEnd()
      .split('\n')
      .map((line) => line.split(';'));
    expect(rows.length).toBe(packets.length);
    expect([...new Set(rows.map(([name]) => name))].sort()).toEqual(['a', 'b']);
    expect([...new Set(rows.map(([, direction]) => Number(direction)))].sort()).toEqual([1, 2]);
    expect(rows.filter((row) => row[4] === '0' || row[5] === '0' || row[6] !== '')).toEqual([]);
    const large = rows.filter(([, , length]) => Number(length) > 5000);
    expect(large.length).toBeGreaterThan(0);
    for (const row of large) expect(row[3]).toMatch(/^superframe, 14\d\d bytes a segment$/);
    const dropped = rows.filter((row) => /dropped/.test(row[3]!));
    expect(dropped.length).toBeGreaterThan(0);
    for (const row of dropped)
      expect([row[0], row[3]]).toEqual(['a', 'dropped: rule (a rule says drop), rule no-telnet']);
  });

  test('of drops alone shows nothing that passes', { timeout: TIMEOUT_MS }, async () => {
    await using capture = await begun({ drops: true });
    await using elsewhere = await begun({ drops: true, ports: ['b'] });
    await lab.run('a', 'ping', '-c', '1', '10.88.0.2');
    await telnet();
    await Promise.all([capture.stop(), elsewhere.stop()]);
    const packets = (await all(capture)).filter(({ bytes }) => bytes[23] === 6);
    expect(packets.length).toBeGreaterThan(0);
    for (const { drop, rule, port, direction } of packets)
      expect([drop?.name, rule, port, direction]).toEqual(['rule', 'no-telnet', 'a', 'drop']);
    for (const { direction, port } of await all(elsewhere))
      expect([direction, port]).not.toEqual(['drop', 'a']);
  });

  test('takes what the filter means, cut short, and ends by itself', { timeout: TIMEOUT_MS }, async () => {
    const match = { protocol: 'icmp', icmpType: 8, source: '10.88.0.0/24' } as const;
    await using capture = await begun({ ports: ['b'], match, snaplen: 60, count: 2 });
    const reading = all(capture);
    await lab.run('a', 'ping', '-c', '3', '-i', '0.05', '-s', '500', '10.88.0.2');
    const packets = await reading;
    expect(
      packets.map(({ port, direction, length, bytes }) => [port, direction, length, bytes.length]),
    ).toEqual(Array(2).fill(['b', 'out', 542, 60]));
    const timed = await begun({ ports: ['a'], match: { etherType: 0x1234 }, seconds: 0.1 });
    expect(await all(timed)).toEqual([]);
    expect(plane.counters().captures).toBe(0);
  });

  test('that nobody reads loses its own packets and no traffic', { timeout: TIMEOUT_MS }, async () => {
    const ports = () => Object.values(plane.stats().ports);
    const lost = () => ports().map(({ drops, lost: kernel }) => ({ drops, kernel }));
    const traffic = () => ports().map(({ received, transmitted }) => ({ received, transmitted }));
    // The last segments of a transfer are seen to after its programs have ended.
    const isStill = async () => {
      const before = traffic();
      await pause(100);
      return isDeepStrictEqual(traffic(), before);
    };
    const before = lost();
    await using capture = await begun({ ringBytes: 1 << 18 });
    const report = await lab.iperf('a', '10.88.0.2', '-n', '20M');
    expect(report.end.sum_sent.bytes).toBeGreaterThan(20e6);
    await expect.poll(isStill).toBe(true);
    const summary = await capture.stop();
    expect(summary.lost).toBeGreaterThan(100);
    expect(lost()).toEqual(before);
    expect(summary.ports.b!.transmitted).toBe(summary.ports.a!.received);
    const packets = await all(capture);
    expect(packets.length).toBeGreaterThan(0);
    expect(packets.reduce((sum, { bytes }) => sum + bytes.length, 0)).toBeLessThan(2 * (1 << 18));
    const counted = Object.values((await capture.stop()).ports);
    expect(counted.reduce((sum, port) => sum + port.captured, 0)).toBe(packets.length);
    expect(counted.reduce((sum, port) => sum + port.lost, 0)).toBe(summary.lost);
  });

  test('ends with the loop that reads it, and with the switch', { timeout: TIMEOUT_MS }, async () => {
    const first = await begun();
    const loop = (async () => {
      for await (const packet of first) return packet;
      return undefined;
    })();
    await lab.run('a', 'ping', '-c', '1', '10.88.0.2');
    expect((await loop)!.bytes.length).toBeGreaterThan(0);
    expect(plane.counters().captures).toBe(0);

    await using other = await Switch.start({ workers: 1 });
    const reading = all(other.capture());
    await other.stop();
    expect(await reading).toEqual([]);
  });

  test('says what it cannot be', async () => {
    await expect(plane.capture({ ports: ['z'] }).started()).rejects.toMatchObject({
      code: 'PORT',
      message: 'no port "z" (there are a, b)',
    });
    await expect(all(plane.capture({ match: { state: 'new' } as object }))).rejects.toMatchObject({
      code: 'CONFIG',
      message: expect.stringContaining('match: unknown key "state" (allowed: '),
    });
    expect(() => plane.capture({ ringBytes: 1000 })).toThrow('power of two');
    expect(plane.counters().captures).toBe(0);
  });
});
