// Real traffic through two ports and the smallest plane there is: taps and packet sockets, offloads on and off, MTU 1500
// and 9000, IPv4 and IPv6, VLANs, several queues, and the kernel's own VXLAN superframes carried whole.
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { packageRoot } from '../../bindings/load.js';
import { lineOn, NetworkLab, networkUnavailable } from '../support/network-lab.js';
import { dropsOf, Forwarder, type PortReport } from './forwarder.js';

const unavailable = networkUnavailable(['iperf3', 'ethtool', 'nstat', 'tcpdump', 'python3']);
const TIMEOUT_MS = 120_000;
const ADDRESSES = { a: ['10.77.0.1', 'fd77::1'], b: ['10.77.0.2', 'fd77::2'] } as const;

type Kind = 'tap' | 'link';

/** Hosts a and b, each with an eth0 that is a port of the forwarder between them. */
async function joined(
  lab: NetworkLab,
  kinds: readonly [Kind, Kind],
  { mtu = 1500, offloads = true, queues = 1 } = {},
): Promise<Forwarder> {
  const ports = (['a', 'b'] as const).map((host, i) => {
    if (kinds[i] === 'tap') return `tap:eth0@${lab.path(host)},mtu=${mtu}${offloads ? '' : ',plain'}`;
    lab.ip('plane', `link add v${host} type veth peer name eth0 netns ${lab.space(host)}`);
    lab.ip('plane', `link set v${host} mtu ${mtu} up`);
    // Before the plane sends: a veth without carrier refuses frames.
    lab.ip(host, `link set eth0 mtu ${mtu} up`);
    return `link:v${host}`;
  });
  const forwarder = await Forwarder.start(lab, 'plane', [ports[0]!, ports[1]!], { queues });
  for (const host of ['a', 'b'] as const) {
    lab.ip(host, `addr add ${ADDRESSES[host][0]}/24 dev eth0`);
    lab.ip(host, `addr add ${ADDRESSES[host][1]}/64 dev eth0 nodad`);
    if (!offloads) {
      await lab.run(host, 'ethtool', '-K', 'eth0', 'tx', 'off', 'tso', 'off', 'gso', 'off', 'gro', 'off');
    }
  }
  await lab.serveIperf('b');
  return forwarder;
}

async function checksumFailures(lab: NetworkLab): Promise<number> {
  let sum = 0;
  for (const host of ['a', 'b']) {
    for (const counter of ['TcpInCsumErrors', 'UdpInCsumErrors', 'Udp6InCsumErrors', 'IpInHdrErrors'])
      sum += await lab.counter(host, counter);
  }
  return sum;
}

function superframes(ports: readonly PortReport[]): number {
  return ports.flatMap((port) => port.queues).reduce((sum, queue) => sum + queue.txSuper, 0);
}

describe.skipIf(unavailable)('two ports joined', () => {
  for (const kinds of [
    ['tap', 'tap'],
    ['link', 'link'],
    ['link', 'tap'],
  ] as const) {
    for (const [mtu, offloads] of [
      [1500, true],
      [9000, true],
      [1500, false],
      [9000, false],
    ] as const) {
      const name = `${kinds.join(' to ')}, MTU ${mtu}, offloads ${offloads ? 'on' : 'off'}`;
      test(`TCP both ways and UDP, IPv4 and IPv6: ${name}`, { timeout: TIMEOUT_MS }, async () => {
        await using lab = new NetworkLab('plane', 'a', 'b');
        const forwarder = await joined(lab, kinds, { mtu, offloads });
        for (const address of ADDRESSES.b) {
          for (const direction of [[], ['-R']]) {
            const { end } = await lab.iperf('a', address, '-n', '12M', ...direction);
            expect(end.sum_sent.bytes).toBeGreaterThan(11_000_000);
          }
          const { packets, lost } = await lab.lossOf('b', () =>
            lab.iperf('a', address, '-u', '-b', '10M', '-n', '120K', '-l', '1200'),
          );
          expect(packets).toBeGreaterThan(90);
          expect(lost).toBeLessThanOrEqual(packets * 0.05);
        }
        const ports = await forwarder.report();
        expect(dropsOf(ports)).toEqual({});
        if (offloads) expect(superframes(ports)).toBeGreaterThan(100);
        else expect(superframes(ports)).toBe(0);
        expect(await checksumFailures(lab)).toBe(0);
        await forwarder.stop();
      });
    }
  }

  test('VLAN tags pass, one and two, on a superframe too', { timeout: TIMEOUT_MS }, async () => {
    for (const kinds of [
      ['link', 'link'],
      ['link', 'tap'],
    ] as const) {
      await using lab = new NetworkLab('plane', 'a', 'b');
      const forwarder = await joined(lab, kinds);
      const argv = ['-i', 'eth0', '-n', '-e', '-l', '--immediate-mode', '-Q', 'in', 'vlan'];
      const capture = lab.start('b', 'tcpdump', ...argv);
      let seen = '';
      capture.stdout!.on('data', (chunk: Buffer) => {
        seen += chunk;
      });
      await lineOn(capture.stderr!, /listening/);
      await lab.run('a', 'python3', join(packageRoot(), 'test/ports/tagged_frames.py'), 'eth0');
      await expect.poll(() => seen.trim().split('\n').length).toBe(3);
      const [one, two, superframe] = seen.trim().split('\n');
      expect(one).toMatch(/802\.1Q \(0x8100\), length 50: vlan 7, .*10\.77\.0\.1\.1 > 10\.77\.0\.2\.2/);
      expect(two).toMatch(/802\.1Q-QinQ.*length 54: vlan 70, .*vlan 7,.*10\.77\.0\.1\.1 > 10\.77\.0\.2\.2/);
      expect(superframe).toMatch(/length 20062: vlan 70, .*vlan 7,.*10\.77\.0\.1\.1000 > .*length 20000/);
      const ports = await forwarder.report();
      expect(dropsOf(ports)).toEqual({});
      expect(ports[0].queues[0]!.rxSuper).toBe(1);
      expect(ports[1].queues[0]!.txSuper).toBe(1);
      await forwarder.stop();
    }
  });

  for (const kind of ['tap', 'link'] as const) {
    test(`several queues share the flows: ${kind}`, { timeout: TIMEOUT_MS }, async () => {
      await using lab = new NetworkLab('plane', 'a', 'b');
      const forwarder = await joined(lab, [kind, kind], { queues: 2 });
      for (const address of ADDRESSES.b) {
        const { end } = await lab.iperf('a', address, '-n', '16M', '-P', '8');
        expect(end.sum_sent.bytes).toBeGreaterThan(15_000_000);
      }
      const ports = await forwarder.report();
      expect(dropsOf(ports)).toEqual({});
      for (const port of ports) {
        expect(port.queues).toHaveLength(2);
        for (const queue of port.queues) expect(queue.rx).toBeGreaterThan(20);
      }
      await forwarder.stop();
    });
  }

  test("the kernel's VXLAN superframes pass whole", { timeout: TIMEOUT_MS }, async () => {
    for (const kinds of [
      ['tap', 'tap'],
      ['link', 'tap'],
    ] as const) {
      await using lab = new NetworkLab('plane', 'a', 'b');
      const forwarder = await joined(lab, kinds);
      for (const [i, host] of (['a', 'b'] as const).entries()) {
        const [local, remote] = [ADDRESSES[host], ADDRESSES[host === 'a' ? 'b' : 'a']];
        for (const [v, udp] of [
          [0, 'udpcsum'],
          [0, 'noudpcsum'],
          [1, 'udp6zerocsumrx'],
        ] as const) {
          const id = v * 10 + (udp === 'noudpcsum' ? 1 : 2);
          const port = 4789;
          lab.ip(
            host,
            `link add vx${id} type vxlan id ${id} local ${local[v]} remote ${remote[v]} dstport ${port} ${udp}`,
          );
          lab.ip(host, `link set vx${id} up`);
          lab.ip(host, `addr add 10.${80 + id}.0.${i + 1}/24 dev vx${id}`);
        }
      }
      for (const id of [1, 2, 12]) {
        const { end } = await lab.iperf('a', `10.${80 + id}.0.2`, '-n', '8M');
        expect(end.sum_sent.bytes).toBeGreaterThan(7_000_000);
      }
      const ports = await forwarder.report();
      expect(dropsOf(ports)).toEqual({});
      // 24 MB as superframes are some hundreds of frames; as 1450-byte frames they would be sixteen thousand.
      expect(superframes(ports)).toBeGreaterThan(200);
      expect(ports[0].queues[0]!.rxBytes / ports[0].queues[0]!.rx).toBeGreaterThan(4000);
      expect(await checksumFailures(lab)).toBe(0);
      await forwarder.stop();
    }
  });
});
