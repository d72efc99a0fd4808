// The underlays with the kernel's own vxlan device as the other end, and with our own: superframes whole by the tap,
// segmented by our engine and sent in trains by UDP sockets; IPv4 and IPv6 outside. The host is left as it was.
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { describe, expect, test } from 'vitest';
import { ADDRESS, buildNative, sanitizedLauncher } from '../support/native-build.js';
import { NetworkLab, networkUnavailable } from '../support/network-lab.js';

const unavailable = networkUnavailable(['iperf3', 'nstat']);
// Built while the file is loaded: a compiler has more time than a test.
const directory = await buildNative(ADDRESS, ['tunnel_forwarder']);
const TIMEOUT_MS = 180_000;
const LOCAL = { 4: ['10.60.0.1', '10.60.0.2'], 6: ['fd60::1', 'fd60::2'] } as const;
const MTU = 1600;

interface Direction {
  readonly packets: number;
  readonly bytes: number;
  readonly superframes: number;
}

interface Report {
  readonly rx: Direction;
  readonly tx: Direction;
  readonly drops: Record<string, number>;
}

interface End {
  readonly findings: { readonly kind: string; readonly tap: string; readonly udp: string };
  report(): Promise<Report>;
  stop(): Promise<void>;
  kill(): Promise<void>;
}

/** Host `host` joins its guest `guest` to the other host. */
async function tunnelEnd(
  lab: NetworkLab,
  kind: string,
  host: string,
  guest: string,
  version: 4 | 6,
): Promise<End> {
  const [launcher, ...before] = sanitizedLauncher();
  const [local, remote] = host === 'h1' ? LOCAL[version] : [...LOCAL[version]].reverse();
  const argv = [kind, `eth0@${lab.path(guest)}`, local!, remote!, '42', String(MTU)];
  const child = lab.start(host, launcher!, ...before, join(directory, 'tunnel_forwarder'), ...argv);
  let errors = '';
  child.stderr!.on('data', (chunk: Buffer) => {
    errors = `${errors}${chunk}`.slice(-16_384);
  });
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  const next = async () => {
    const { value, done } = await lines.next();
    if (done) throw new Error(`the forwarder ended (${await ended}): ${errors}`);
    return JSON.parse(value);
  };
  const findings = await next();
  return {
    findings,
    report: () => {
      child.stdin!.write('\n');
      return next();
    },
    stop: async () => {
      child.stdin!.end();
      expect(await ended, errors).toBe(0);
    },
    kill: async () => {
      child.kill('SIGKILL');
      await ended;
    },
  };
}

function hosts(): NetworkLab {
  const lab = new NetworkLab('h1', 'h2', 'g1', 'g2');
  lab.ip('h1', `link add u0 type veth peer name u0 netns ${lab.space('h2')}`);
  for (const [i, host] of (['h1', 'h2'] as const).entries()) {
    lab.ip(host, `link set u0 mtu ${MTU} up`);
    lab.ip(host, `addr add ${LOCAL[4][i]}/24 dev u0`);
    lab.ip(host, `addr add ${LOCAL[6][i]}/64 dev u0 nodad`);
  }
  return lab;
}

const sysctls = (lab: NetworkLab) =>
  lab.run('h1', 'sh', '-c', 'cd /proc/sys/net && grep -rs . ipv4/conf ipv6/conf ipv4/ip_forward; true');

async function bothWays(lab: NetworkLab, client: string, serving: string, server: string): Promise<void> {
  for (const direction of [[], ['-R']]) {
    const { end } = await lab.iperf(client, server, '-n', '24M', ...direction);
    expect(end.sum_sent.bytes).toBeGreaterThan(24_000_000);
  }
  const { packets, lost } = await lab.lossOf(serving, () =>
    lab.iperf(client, server, '-u', '-b', '10M', '-n', '120K', '-l', '1200'),
  );
  expect(lost).toBeLessThanOrEqual(packets * 0.05);
}

describe.skipIf(unavailable)('underlay', () => {
  for (const version of [4, 6] as const) {
    for (const kind of ['tap', 'udp'] as const) {
      test(`${kind} over IPv${version}, the kernel's vxlan at the other end`, {
        timeout: TIMEOUT_MS,
      }, async (context) => {
        await using lab = hosts();
        const before = await sysctls(lab);
        const [remote, local] = LOCAL[version];
        const options = `local ${local} remote ${remote} dstport 4789${version === 6 ? ' udp6zerocsumrx' : ''}`;
        lab.ip('h2', `link add vx0 type vxlan id 42 ${options}`);
        lab.ip('h2', 'link set vx0 mtu 1500 up');
        lab.ip('h2', 'addr add 10.61.0.2/24 dev vx0');
        const ours = await tunnelEnd(lab, 'probe', 'h1', 'g1', version);
        if (kind === 'tap' && ours.findings.kind !== 'tap') context.skip(ours.findings.tap);
        await ours.stop();

        const end = await tunnelEnd(lab, kind, 'h1', 'g1', version);
        expect(end.findings.kind).toBe(kind);
        expect(end.findings.udp).toMatch(/^datagrams go /);
        lab.ip('g1', 'addr add 10.61.0.1/24 dev eth0');
        await lab.serveIperf('h2');
        await bothWays(lab, 'g1', 'h2', '10.61.0.2');
        const { rx, tx, drops } = await end.report();
        expect(drops).toEqual({});
        expect(rx.superframes).toBeGreaterThan(300);
        if (kind === 'tap') expect(tx.bytes / tx.packets).toBeGreaterThan(5000);
        else expect(tx.bytes / tx.packets).toBeLessThan(MTU + 14);
        for (const space of ['g1', 'h1', 'h2']) {
          for (const counter of ['TcpInCsumErrors', 'UdpInCsumErrors', 'Udp6InCsumErrors'])
            expect(await lab.counter(space, counter), `${counter} in ${space}`).toBe(0);
        }
        await end.kill();
        expect(await sysctls(lab)).toBe(before);
        expect(lab.ip('h1', 'link show')).not.toContain('ul0');
      });
    }

    test(`both ends ours over IPv${version}, one tap and one udp`, { timeout: TIMEOUT_MS }, async () => {
      await using lab = hosts();
      const first = await tunnelEnd(lab, 'probe', 'h1', 'g1', version);
      const second = await tunnelEnd(lab, 'udp', 'h2', 'g2', version);
      lab.ip('g1', 'addr add 10.61.0.1/24 dev eth0');
      lab.ip('g2', 'addr add 10.61.0.2/24 dev eth0');
      await lab.serveIperf('g2');
      await bothWays(lab, 'g1', 'g2', '10.61.0.2');
      for (const end of [first, second]) {
        expect((await end.report()).drops).toEqual({});
        await end.stop();
      }
      for (const space of ['g1', 'g2']) expect(await lab.counter(space, 'TcpInCsumErrors')).toBe(0);
    });
  }

  test('a tunnel port that is taken is said so', { timeout: TIMEOUT_MS }, async () => {
    await using lab = hosts();
    lab.ip('h1', 'link add vx0 type vxlan id 1 local 10.60.0.1 remote 10.60.0.2 dstport 4789');
    lab.ip('h1', 'link set vx0 up');
    await expect(tunnelEnd(lab, 'udp', 'h1', 'g1', 4)).rejects.toThrow(
      /UDP port 4789 of 10\.60\.0\.1\/32: Address already in use/,
    );
  });
});
