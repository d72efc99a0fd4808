// Flow offload between namespaces: what the kernel forwards by itself is what the switch would have forwarded, no frame
// doubled, lost or let through that the switch would have stopped.
import { type ChildProcess, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { describe, expect, test } from 'vitest';
import { packageRoot } from '../../bindings/load.js';
import type { SwitchConfigInput } from '../../src/network/config.js';
import { Switch, type SwitchStats } from '../../src/network/switch.js';
import { lineOf, NetworkLab, networkUnavailable } from '../support/network-lab.js';

const unavailable = networkUnavailable([
  'iperf3',
  'ping',
  'nstat',
  'ethtool',
  'python3',
  'tshark',
  'tcpdump',
]);
const TIMEOUT_MS = 300_000;

/** Megabytes that differ everywhere, and what they come to at the other end. */
const SEND = `
import hashlib, random, socket, sys
data = random.Random(7).randbytes(int(sys.argv[2]) << 20)
with socket.create_connection((sys.argv[1], 5299)) as out:
    for i in range(0, len(data), 1 << 20): out.sendall(data[i:i + (1 << 20)])
print(hashlib.sha256(data).hexdigest())`;
const RECEIVE = `
import hashlib, socket
server = socket.create_server(('', 5299), family=socket.AF_INET6, dualstack_ipv6=True)
print('listening', flush=True)
peer, digest = server.accept()[0], hashlib.sha256()
while data := peer.recv(1 << 20): digest.update(data)
print(digest.hexdigest(), flush=True)`;
/** Numbered datagrams, one every so many milliseconds, until they are sent or its input ends; says how many. */
const NUMBERS = `
import select, socket, struct, sys, time
out = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
out.bind(('', 5301))
out.connect((sys.argv[1], 5300))
number = 0
while number < int(sys.argv[2]) and not select.select([sys.stdin], [], [], 0)[0]:
    try: out.send(struct.pack('>I', number) + bytes(200))
    except ConnectionRefusedError: pass
    number += 1
    time.sleep(float(sys.argv[3]) / 1000)
print('sent', number, flush=True)`;
/** Answers every tenth, so that connections are established; prints a line for each on request. */
const COLLECT = `
import socket, struct, sys
sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
sock.setsockopt(socket.SOL_SOCKET, 33, 1 << 24) # SO_RCVBUFFORCE
sock.bind(('::', 5300))
print('ready', flush=True)
while True:
    data, peer = sock.recvfrom(4096)
    number = struct.unpack('>I', data[:4])[0]
    print(number, flush=True)
    if number % 10 == 0: sock.sendto(data[:4], peer)`;

/** How many programs stand on interfaces: their ingress, their egress (BPF_PROG_QUERY). */
const PROGRAMS = `
import ctypes, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
total = 0
for link in sys.argv[1:]:
    for hook in (46, 47):
        query = ctypes.create_string_buffer(struct.pack('IIIIQI', socket.if_nametoindex(link), hook, 0, 0, 0, 0), 64)
        if libc.syscall(321, 16, query, 64) != 0: sys.exit('BPF_PROG_QUERY: errno %d' % ctypes.get_errno())
        total += struct.unpack_from('I', query, 24)[0]
print(total)`;

/** Hosts with eth0 on a veth whose other end `v<host>` is in `plane`. */
function wire(lab: NetworkLab, plane: string, hosts: ReadonlyArray<readonly [string, number]>): void {
  for (const [host, number] of hosts) {
    lab.ip(plane, `link add v${host} type veth peer name eth0 netns ${lab.space(host)}`);
    lab.ip(plane, `link set v${host} up`);
    lab.ip(host, 'link set eth0 up');
    lab.ip(host, `addr add 10.88.0.${number}/24 dev eth0`);
    lab.ip(host, `addr add fd88::${number}/64 dev eth0 nodad`);
  }
}

const AB = [
  ['a', 1],
  ['b', 2],
] as const;

function twoPorts(lab: NetworkLab, more: Partial<SwitchConfigInput> = {}): SwitchConfigInput {
  const namespace = lab.path('plane');
  return {
    networks: { blue: { tracking: true } },
    ports: {
      a: { interface: 'va', namespace, network: 'blue' },
      b: { interface: 'vb', namespace, network: 'blue' },
    },
    ...more,
  };
}

/** Sends from `from` to the other and fails unless the same bytes arrive. */
async function transfer(lab: NetworkLab, from: string, to: string, address: string, mib = 32): Promise<void> {
  const receiver = lab.start(to, 'python3', '-c', RECEIVE);
  await lineOf(receiver, /listening/);
  const arrived = lineOf(receiver, /^[0-9a-f]{64}$/);
  const ended = once(receiver, 'close');
  const sent = await lab.run(from, 'python3', '-c', SEND, address, String(mib));
  expect(await arrived).toBe(sent.trim());
  await ended;
}

/** Ends the input of a sender of numbers; answers how many it has sent. */
async function sentBy(sender: ChildProcess): Promise<number> {
  const said = lineOf(sender, /^sent \d+$/);
  const ended = once(sender, 'close');
  sender.stdin!.end();
  const [, count] = (await said).split(' ');
  await ended;
  return Number(count);
}

/** Of the numbers over IPv4 that `a` sends, the greatest that may have been sent by now. */
const lastSent = (lab: NetworkLab): Promise<number> => lab.counter('a', 'UdpOutDatagrams');

const upTo = (count: number): number[] => Array.from({ length: count }, (_, number) => number);

class Collector {
  readonly numbers: number[] = [];
  private constructor(readonly child: ChildProcess) {}
  static async start(lab: NetworkLab, space: string): Promise<Collector> {
    const child = lab.start(space, 'python3', '-c', COLLECT);
    await lineOf(child, /ready/);
    const collector = new Collector(child);
    let rest = '';
    child.stdout!.on('data', (chunk: Buffer) => {
      const lines = `${rest}${chunk}`.split('\n');
      rest = lines.pop()!;
      for (const line of lines) if (/^\d+$/.test(line)) collector.numbers.push(Number(line));
    });
    return collector;
  }
  async atLeast(count: number): Promise<void> {
    while (this.numbers.length < count) await pause(10);
  }
  /** All that came, by number, once they are so many, and whatever comes beyond that. */
  async all(count: number): Promise<number[]> {
    const endMs = performance.now() + 10_000;
    while (this.numbers.length < count && performance.now() < endMs) await pause(20);
    await pause(200);
    return [...this.numbers].sort((a, b) => a - b);
  }
  async stop(): Promise<void> {
    const ended = once(this.child, 'close');
    this.child.kill();
    await ended;
  }
}

const flows = (plane: Switch): number => plane.counters().offloadedFlows!;
async function offloaded(plane: Switch, count = 1): Promise<void> {
  while (flows(plane) < count) await pause(20);
}

interface Standing {
  readonly stats: SwitchStats;
  /** How many more frames the kernel has counted at each interface than the switch received or counted as lost on the way. */
  readonly unaccounted: readonly number[];
}

/** Read between two equal readings of the kernel's counts: hosts solicit routers and report groups unasked. */
async function standing(lab: NetworkLab, plane: Switch): Promise<Standing> {
  const counts = () => AB.map(([host]) => lab.received('plane', `v${host}`));
  for (;;) {
    const counted = counts();
    await pause(100);
    const stats = plane.stats();
    if (!isDeepStrictEqual(counts(), counted)) continue;
    const unaccounted = AB.map(([host], i) => {
      const { received, lost } = stats.ports[host]!;
      return counted[i]! - received.packets - lost;
    });
    return { stats, unaccounted };
  }
}

async function wrongChecksums(lab: NetworkLab, ...spaces: readonly string[]): Promise<number> {
  const counts = spaces.flatMap((space) =>
    ['TcpInCsumErrors', 'UdpInCsumErrors', 'IpInHdrErrors'].map((name) => lab.counter(space, name)),
  );
  return (await Promise.all(counts)).reduce((sum, count) => sum + count, 0);
}

async function programs(lab: NetworkLab, space: string, ...links: readonly string[]): Promise<number> {
  return Number(await lab.run(space, 'python3', '-c', PROGRAMS, ...links));
}

/** A configuration file of a daemon in `plane`, with what the switch defaults to. */
function daemonFile(lab: NetworkLab): string {
  const file = join(lab.directory, 'penstock.yaml');
  const document = {
    networks: { blue: {} },
    ports: { a: { interface: 'va', network: 'blue' }, b: { interface: 'vb', network: 'blue' } },
  };
  writeFileSync(file, JSON.stringify({ log: { level: 'warn' }, switch: document }));
  return file;
}

/** Arguments of `env` that run the command line with a runtime directory of the lab's. */
function penstock(lab: NetworkLab): string[] {
  const main = join(packageRoot(), 'dist/src/cli/main.js');
  return [`PENSTOCK_RUNTIME_DIR=${join(lab.directory, 'run')}`, process.execPath, main];
}

describe.skipIf(unavailable !== undefined)('flow offload', () => {
  test('forwards TCP over both families, the same bytes, all of them counted', {
    timeout: TIMEOUT_MS,
  }, async () => {
    await using lab = new NetworkLab('plane', 'a', 'b');
    wire(lab, 'plane', AB);
    await using plane = await Switch.start();
    await plane.apply(twoPorts(lab));
    expect(plane.show().offload).toEqual({ state: 'on' });
    await pause(100);
    // Frames from before the interfaces were taken over are nobody's.
    const { unaccounted: before } = await standing(lab, plane);
    for (const [from, to, address] of [
      ['a', 'b', '10.88.0.2'],
      ['b', 'a', '10.88.0.1'],
      ['a', 'b', 'fd88::2'],
    ] as const)
      await transfer(lab, from, to, address);
    expect(await wrongChecksums(lab, 'a', 'b')).toBe(0);
    // The end of a connection is user space's: its flows are back, and the connection is known to be over.
    await expect.poll(() => flows(plane)).toBe(0);
    await expect.poll(async () => (await standing(lab, plane)).unaccounted).toEqual(before);
    const { ports, counters } = (await standing(lab, plane)).stats;
    expect(counters.offloadTaken!).toBeGreaterThanOrEqual(6);
    expect(counters.offloadedBytes!).toBeGreaterThan(32 << 20);
    expect(ports.b!.transmitted).toEqual(ports.a!.received);
    expect(ports.a!.offloaded!.received.packets + ports.b!.offloaded!.received.packets).toBe(
      counters.offloadedPackets,
    );
  });

  test('neither loses nor doubles a datagram while flows come and go', { timeout: TIMEOUT_MS }, async () => {
    await using lab = new NetworkLab('plane', 'a', 'b');
    wire(lab, 'plane', AB);
    await using plane = await Switch.start();
    await plane.apply(twoPorts(lab));
    for (const address of ['10.88.0.2', 'fd88::2']) {
      const collector = await Collector.start(lab, 'b');
      const sender = lab.start('a', 'python3', '-c', NUMBERS, address, '100000', '1');
      for (let round = 0; round < 4; round += 1) {
        await offloaded(plane, 1);
        await pause(50);
        await plane.apply(twoPorts(lab));
      }
      const count = await sentBy(sender);
      expect(await collector.all(count)).toEqual(upTo(count));
      await collector.stop();
    }
  });

  test('a configuration that forbids the flow stops it before apply returns', {
    timeout: TIMEOUT_MS,
  }, async () => {
    await using lab = new NetworkLab('plane', 'a', 'b');
    wire(lab, 'plane', AB);
    await using plane = await Switch.start();
    await plane.apply(twoPorts(lab));
    const collector = await Collector.start(lab, 'b');
    lab.start('a', 'python3', '-c', NUMBERS, '10.88.0.2', '100000', '0.5');
    await offloaded(plane, 1);
    await collector.atLeast(collector.numbers.length + 200);
    const guarded = twoPorts(lab, { groups: { web: { in: [{ protocol: 'tcp' }], out: [{}] } } });
    guarded.ports!.b = { ...guarded.ports!.b, groups: ['web'] };
    const forbid = {
      rule: () => plane.apply(twoPorts(lab, { rules: [{ match: { protocol: 'udp' }, action: 'drop' }] })),
      'security-group': () => plane.apply(guarded),
      'port-blocked': () => plane.setPortState('b', 'blocked'),
    };
    for (const [reason, apply] of Object.entries(forbid)) {
      const dropped = () => (plane.port('a')!.drops[reason] ?? 0) + (plane.port('b')!.drops[reason] ?? 0);
      const before = dropped();
      await apply();
      const last = await lastSent(lab);
      await expect.poll(() => dropped() - before).toBeGreaterThan(50);
      await pause(100);
      expect(collector.numbers.filter((number) => number > last)).toEqual([]);
      expect(flows(plane)).toBe(0);
      await plane.setPortState('b', 'up');
      await plane.apply(twoPorts(lab));
      await offloaded(plane, 1);
    }
  });

  test('limits hold: a flow that is metered stays in user space, whose meter it is', {
    timeout: TIMEOUT_MS,
  }, async () => {
    await using lab = new NetworkLab('plane', 'a', 'b');
    wire(lab, 'plane', AB);
    await using plane = await Switch.start();
    const limited = twoPorts(lab);
    limited.ports!.a = { ...limited.ports!.a, receive: { rate: '100kbit', burst: 2000 } };
    const metered = twoPorts(lab, {
      meters: { slow: { rate: '100kbit', burst: 2000 } },
      rules: [{ match: { protocol: 'udp' }, meter: 'slow' }],
    });
    await plane.apply(twoPorts(lab));
    const collector = await Collector.start(lab, 'b');
    lab.start('a', 'python3', '-c', NUMBERS, '10.88.0.2', '100000', '0.5');
    for (const document of [limited, metered]) {
      await offloaded(plane, 1);
      await collector.atLeast(collector.numbers.length + 100);
      await plane.apply(document);
      const dropped = () => plane.port('a')!.drops.meter ?? 0;
      const before = dropped();
      await expect.poll(() => dropped() - before).toBeGreaterThan(50);
      expect(flows(plane)).toBe(0);
      await plane.apply(twoPorts(lab));
    }
  });

  test('switched off it leaves no program behind, and comes back', { timeout: TIMEOUT_MS }, async () => {
    await using lab = new NetworkLab('plane', 'a', 'b');
    wire(lab, 'plane', AB);
    await using plane = await Switch.start();
    await plane.apply(twoPorts(lab));
    expect(await programs(lab, 'plane', 'va', 'vb')).toBe(2);
    await transfer(lab, 'a', 'b', '10.88.0.2', 4);
    await plane.apply(twoPorts(lab, { offload: 'off' }));
    expect(plane.show().offload).toEqual({ state: 'off' });
    expect(await programs(lab, 'plane', 'va', 'vb')).toBe(0);
    const { offloadTaken } = plane.counters();
    await transfer(lab, 'a', 'b', '10.88.0.2', 4);
    expect(plane.counters().offloadTaken).toBe(offloadTaken);
    await plane.apply(twoPorts(lab));
    // A flow that was taken back makes the next one wait for the kernel, longer than a short transfer may take.
    do await transfer(lab, 'a', 'b', '10.88.0.2', 4);
    while (plane.counters().offloadTaken === offloadTaken);
  });

  test('without the right to use BPF everything works in user space, and show says why', {
    timeout: TIMEOUT_MS,
  }, async () => {
    await using lab = new NetworkLab('plane', 'a', 'b');
    wire(lab, 'plane', AB);
    const without = ['setpriv', '--bounding-set', '-bpf,-sys_admin,-perfmon'];
    const daemon = lab.start('plane', 'env', ...without, 'env', ...penstock(lab), 'up', daemonFile(lab));
    let said = '';
    daemon.stderr!.on('data', (chunk: Buffer) => {
      said += chunk;
    });
    await lineOf(daemon, /Stop with Ctrl-C/);
    await transfer(lab, 'a', 'b', '10.88.0.2', 4);
    const shown = await lab.run('plane', 'env', ...penstock(lab), 'switch', 'show');
    expect(shown.match(/^flow offload is not available: .*$/gm)).toEqual([
      'flow offload is not available: BPF map penstock_flows: Operation not permitted (it needs CAP_BPF and CAP_NET_ADMIN)',
    ]);
    expect(said).toBe('');
  });

  test('a capture that begins amid a flow sees every frame from then on', {
    timeout: TIMEOUT_MS,
  }, async () => {
    await using lab = new NetworkLab('plane', 'a', 'b');
    wire(lab, 'plane', AB);
    await using plane = await Switch.start();
    await plane.apply(twoPorts(lab));
    const collector = await Collector.start(lab, 'b');
    lab.start('a', 'python3', '-c', NUMBERS, '10.88.0.2', '100000', '1');
    await offloaded(plane, 1);
    await collector.atLeast(collector.numbers.length + 100);
    const capture = plane.capture({ ports: ['a'], match: { protocol: 'udp', destinationPorts: 5300 } });
    const seen: number[] = [];
    const reading = (async () => {
      for await (const item of capture)
        if (item.direction === 'in') seen.push(Buffer.from(item.bytes).readUInt32BE(42));
    })();
    await capture.started();
    const last = await lastSent(lab);
    const since = () => collector.numbers.filter((number) => number > last);
    await expect.poll(() => since().length).toBeGreaterThan(200);
    const passed = since();
    await capture.stop();
    await reading;
    const numbers = new Set(seen);
    expect(passed.filter((number) => !numbers.has(number))).toEqual([]);
    expect(numbers.size).toBe(seen.length);
    await offloaded(plane, 1);
  });

  test('forged source addresses are dropped beside an offloaded flow', {
    timeout: TIMEOUT_MS,
  }, async () => {
    await using lab = new NetworkLab('plane', 'a', 'b');
    wire(lab, 'plane', AB);
    const mac = (JSON.parse(lab.ip('a', '-j link show eth0')) as [{ address: string }])[0].address;
    const guard = { mac, addresses: ['10.88.0.1'], antiSpoof: true };
    const document = twoPorts(lab);
    document.ports!.a = { ...document.ports!.a, ...guard };
    await using plane = await Switch.start();
    await plane.apply(document);
    const collector = await Collector.start(lab, 'b');
    lab.start('a', 'python3', '-c', NUMBERS, '10.88.0.2', '100000', '1');
    await offloaded(plane, 1);
    await collector.atLeast(collector.numbers.length + 50);
    const [there] = JSON.parse(lab.ip('b', '-j link show eth0')) as [{ address: string }];
    lab.ip('a', 'link set eth0 address 02:00:00:00:00:66');
    lab.ip('a', `neigh replace 10.88.0.2 lladdr ${there.address} dev eth0 nud permanent`);
    const last = await lastSent(lab);
    await expect.poll(() => plane.port('a')!.drops['spoofed-mac'] ?? 0).toBeGreaterThan(50);
    await pause(100);
    expect(collector.numbers.filter((number) => number > last)).toEqual([]);
  });

  test('an idle flow goes back, a full table leaves flows in user space', {
    timeout: TIMEOUT_MS,
  }, async () => {
    await using lab = new NetworkLab('plane', 'a', 'b');
    wire(lab, 'plane', AB);
    await using plane = await Switch.start({ offloadedFlows: 1, offloadIdleSeconds: 1 });
    await plane.apply(twoPorts(lab));
    await transfer(lab, 'a', 'b', '10.88.0.2', 64);
    expect(plane.counters().offloadTaken!).toBeGreaterThanOrEqual(1);
    expect(plane.counters().offloadFull!).toBeGreaterThanOrEqual(1);
    await expect.poll(() => flows(plane)).toBe(0);
    const collector = await Collector.start(lab, 'b');
    const sender = lab.start('a', 'python3', '-c', NUMBERS, '10.88.0.2', '100000', '1');
    await offloaded(plane, 1);
    await collector.atLeast(200);
    expect(flows(plane)).toBe(1);
    const count = await sentBy(sender);
    await expect.poll(() => flows(plane)).toBe(0);
    expect(await collector.all(count)).toEqual(upTo(count));
  });

  test('trace says whether the kernel forwards a flow, and why not', { timeout: TIMEOUT_MS }, async () => {
    await using lab = new NetworkLab('plane', 'a', 'b');
    wire(lab, 'plane', AB);
    await using plane = await Switch.start();
    const document = twoPorts(lab);
    document.ports!.b = { ...document.ports!.b, offload: 'off' };
    await plane.apply(document);
    const collector = await Collector.start(lab, 'b');
    lab.start('a', 'python3', '-c', NUMBERS, '10.88.0.2', '100000', '1');
    await collector.atLeast(100);
    expect(flows(plane)).toBe(0);
    const frames: Uint8Array[] = [];
    const capture = plane.capture({ ports: ['a'], match: { destinationPorts: 5300, protocol: 'udp' } });
    for await (const item of capture) {
      frames.push(item.bytes);
      break;
    }
    await capture.stop();
    expect(plane.trace('a', frames[0]!).text).toContain("stays in user space: a port's offload is off");
    await plane.apply(twoPorts(lab));
    await offloaded(plane, 1);
    const traced = () => plane.trace('a', frames[0]!).text;
    await expect.poll(traced).toMatch(/forwarded by the kernel, \d+ packets so far/);
  });

  test.each(['tap', 'udp'] as const)(
    'into VXLAN and out of it, underlay %s',
    {
      timeout: TIMEOUT_MS,
    },
    async (underlay) => {
      await using lab = new NetworkLab('p1', 'p2', 'a', 'b');
      const planes = await overlay(lab, underlay, [true, true]);
      try {
        for (const [from, to, address] of [
          ['a', 'b', '10.88.0.2'],
          ['b', 'a', 'fd88::1'],
        ] as const)
          await transfer(lab, from, to, address);
        const collector = await Collector.start(lab, 'b');
        await lineOf(lab.start('a', 'python3', '-c', NUMBERS, '10.88.0.2', '500', '1'), /sent/);
        expect(await collector.all(500)).toEqual(upTo(500));
        expect(await wrongChecksums(lab, 'a', 'b', 'p1', 'p2')).toBe(0);
        for (const plane of planes) {
          expect(plane!.counters().offloadedBytes!).toBeGreaterThan(16 << 20);
          const unsent = () => {
            const { counters, ports } = plane!.stats();
            return counters.encapsulated! - ports.wire!.transmitted.packets;
          };
          // The other kind segments after encapsulation.
          if (underlay === 'tap') await expect.poll(unsent).toBe(0);
        }
      } finally {
        for (const plane of planes) await plane?.stop();
      }
    },
  );

  test('a flow into a tunnel follows the route to its peer', { timeout: TIMEOUT_MS }, async () => {
    await using lab = new NetworkLab('p1', 'p2', 'a', 'b');
    const planes = await overlay(lab, 'udp', [true, true]);
    lab.ip('p1', `link add other type veth peer name other netns ${lab.space('p2')}`);
    for (const [index, host] of ['p1', 'p2'].entries()) {
      lab.ip(host, 'link set other mtu 1600 up');
      lab.ip(host, `addr add 172.17.0.${index + 1}/24 dev other`);
    }
    const collector = await Collector.start(lab, 'b');
    lab.start('a', 'python3', '-c', NUMBERS, '10.88.0.2', '100000', '1');
    await offloaded(planes[0]!, 1);
    await collector.atLeast(collector.numbers.length + 50);
    lab.ip('p1', 'route add 172.16.0.2/32 via 172.17.0.2 src 172.16.0.1');
    const other = () => lab.received('p2', 'other');
    const idle = other();
    await expect.poll(() => other() - idle).toBeGreaterThan(10);
    const [before, from] = [lab.received('p2', 'wire'), other()];
    await expect.poll(() => other() - from).toBeGreaterThan(250);
    expect(lab.received('p2', 'wire') - before).toBeLessThan(50);
    await offloaded(planes[0]!, 1);
    await collector.atLeast(collector.numbers.length + 50);
    for (const plane of planes) await plane!.stop();
  });

  test('rules, peers and connections count what the kernel forwards', { timeout: TIMEOUT_MS }, async () => {
    await using lab = new NetworkLab('p1', 'p2', 'a', 'b');
    const planes = await overlay(lab, 'udp', [true, true]);
    const rules = [{ name: 'numbers', match: { protocol: 'udp', destinationPorts: 5300 } } as const];
    for (const plane of planes) await plane!.apply({ ...plane!.show().config, rules });
    const collector = await Collector.start(lab, 'b');
    const sender = lab.start('a', 'python3', '-c', NUMBERS, '10.88.0.2', '100000', '2');
    for (const plane of planes)
      await expect.poll(() => plane!.counters().offloadedPackets!).toBeGreaterThan(300);
    const packets = await sentBy(sender);
    const bytes = packets * (42 + 204);
    expect(await collector.all(packets)).toEqual(upTo(packets));
    for (const [index, plane] of planes.entries()) {
      expect(plane!.stats().rules).toMatchObject([{ name: 'numbers', packets, bytes }]);
      const numbers = () => plane!.show().connections.find(({ flow }) => flow.includes(':5300'))!;
      await expect.poll(() => numbers().answers.packets).toBe(Math.ceil(packets / 10));
      expect(numbers().sent).toEqual({ packets, bytes });
      const [peer] = plane!.show().peers;
      expect(peer![index === 0 ? 'transmitted' : 'received']).toBeGreaterThanOrEqual(packets);
      await plane!.stop();
    }
  });

  test('a host that gets an IPsec policy sends nothing past it', { timeout: TIMEOUT_MS }, async () => {
    await using lab = new NetworkLab('p1', 'p2', 'a', 'b');
    const planes = await overlay(lab, 'udp', [true, true]);
    const collector = await Collector.start(lab, 'b');
    lab.start('a', 'python3', '-c', NUMBERS, '10.88.0.2', '100000', '1');
    await offloaded(planes[0]!, 1);
    await collector.atLeast(collector.numbers.length + 50);
    lab.ip('p1', 'xfrm policy add src 172.16.0.1/32 dst 172.16.0.2/32 dir out action block');
    await expect.poll(() => planes[0]!.port('wire')!.offloaded!.finding).toMatch(/IPsec/);
    await expect.poll(() => flows(planes[0]!)).toBe(0);
    const [passed, last] = [lab.received('p2', 'wire'), await lastSent(lab)];
    await expect.poll(() => lastSent(lab)).toBeGreaterThan(last + 300);
    expect(lab.received('p2', 'wire') - passed).toBeLessThan(10); // neighbours are asked for now and then; the flow has 300
    expect(flows(planes[0]!)).toBe(0);
    lab.ip('p1', 'xfrm policy flush');
    await collector.atLeast(collector.numbers.length + 50);
    await offloaded(planes[0]!, 1);
    for (const plane of planes) await plane!.stop();
  });

  test("with the kernel's vxlan device at the other end, its checksums off and on", {
    timeout: TIMEOUT_MS,
  }, async () => {
    for (const checksum of ['noudpcsum', 'udpcsum']) {
      await using lab = new NetworkLab('p1', 'p2', 'a', 'b');
      const [plane] = await overlay(lab, 'udp', [true, false], checksum);
      await transfer(lab, 'a', 'b', '10.88.0.2');
      await transfer(lab, 'b', 'a', '10.88.0.1');
      // Receivers that sum by themselves what is said to be verified or partial.
      for (const space of ['a', 'b']) await lab.run(space, 'ethtool', '-K', 'eth0', 'rx', 'off', 'tx', 'off');
      await transfer(lab, 'a', 'b', 'fd88::2');
      await transfer(lab, 'b', 'a', '10.88.0.1');
      expect(await wrongChecksums(lab, 'a', 'b', 'p1', 'p2')).toBe(0);
      expect(plane!.counters().offloadedBytes!).toBeGreaterThan(32 << 20);
      await plane!.stop();
    }
  });

  test('what came out of a tunnel is segmented rightly by a further bridge', {
    timeout: TIMEOUT_MS,
  }, async () => {
    // b is a bridge; behind it c, whose interface takes no superframes and verifies every sum.
    await using lab = new NetworkLab('p1', 'p2', 'a', 'b', 'c');
    const planes = await overlay(lab, 'tap', [true, true]);
    lab.ip('b', 'addr flush dev eth0');
    lab.ip('b', 'link add br0 type bridge');
    lab.ip('b', `link add toc type veth peer name eth0 netns ${lab.space('c')}`);
    for (const link of ['eth0', 'toc']) lab.ip('b', `link set ${link} master br0`);
    await lab.run('b', 'ethtool', '-K', 'toc', 'tso', 'off', 'gso', 'off', 'tx', 'off');
    await lab.run('c', 'ethtool', '-K', 'eth0', 'rx', 'off', 'gro', 'off');
    for (const link of ['toc', 'br0']) lab.ip('b', `link set ${link} up`);
    lab.ip('c', 'link set eth0 up');
    lab.ip('c', 'addr add 10.88.0.2/24 dev eth0');
    const file = join(lab.directory, 'c.pcap');
    const capture = lab.start('c', 'tcpdump', '-Z', 'root', '-i', 'eth0', '-s', '0', '-w', file, 'tcp');
    await lineOf({ stdout: capture.stderr } as ChildProcess, /listening/);
    await transfer(lab, 'a', 'c', '10.88.0.2', 32);
    await pause(300);
    const ended = new Promise((resolve) => capture.once('close', resolve));
    capture.kill('SIGINT');
    await ended;
    const check = [
      '-o',
      'ip.check_checksum:TRUE',
      '-o',
      'tcp.check_checksum:TRUE',
      '-o',
      'tcp.desegment_tcp_streams:FALSE',
    ];
    const bad = await lab.run(
      'c',
      'tshark',
      '-r',
      file,
      ...check,
      '-Y',
      'ip.dst == 10.88.0.2 && (tcp.checksum.status == "Bad" || ip.checksum.status == "Bad" || frame.len > 1514)',
    );
    expect(bad).toBe('');
    expect(await wrongChecksums(lab, 'c')).toBe(0);
    for (const plane of planes) {
      expect(plane!.counters().offloadedBytes!).toBeGreaterThan(16 << 20);
      await plane!.stop();
    }
  });

  test('taps: from the kernel of this host into a tunnel-less network and back', {
    timeout: TIMEOUT_MS,
  }, async () => {
    await using lab = new NetworkLab('plane', 'a');
    wire(lab, 'plane', [['a', 1]]);
    await using plane = await Switch.start();
    const namespace = lab.path('plane');
    await plane.apply({
      networks: { blue: { tracking: true } },
      ports: {
        a: { interface: 'va', namespace, network: 'blue' },
        host: { tap: 'pst-host', namespace, network: 'blue' },
      },
    });
    lab.ip('plane', 'addr add 10.88.0.2/24 dev pst-host');
    await transfer(lab, 'a', 'plane', '10.88.0.2');
    await transfer(lab, 'plane', 'a', '10.88.0.1');
    expect(await wrongChecksums(lab, 'a', 'plane')).toBe(0);
    expect(plane.counters().offloadedBytes!).toBeGreaterThan(16 << 20);
  });

  test('kill -9 leaves interfaces as they were, and the next daemon takes them over', {
    timeout: TIMEOUT_MS,
  }, async () => {
    await using lab = new NetworkLab('plane', 'a', 'b');
    wire(lab, 'plane', AB);
    const up = async (): Promise<ChildProcess> => {
      const daemon = lab.start('plane', 'env', ...penstock(lab), 'up', daemonFile(lab));
      await lineOf(daemon, /Stop with Ctrl-C/);
      return daemon;
    };
    const daemon = await up();
    await transfer(lab, 'a', 'b', '10.88.0.2');
    expect(await programs(lab, 'plane', 'va', 'vb')).toBe(2);
    const ended = new Promise((resolve) => daemon.once('close', resolve));
    const pid = spawnSync('ip', ['netns', 'pids', lab.space('plane')], { encoding: 'utf8' }).stdout.trim();
    for (const one of pid.split('\n')) process.kill(Number(one), 'SIGKILL');
    await ended;
    await expect.poll(() => programs(lab, 'plane', 'va', 'vb', 'lo')).toBe(0);
    lab.ip('plane', 'addr add 10.88.0.9/24 dev va');
    await lab.run('a', 'ping', '-c', '1', '-W', '10', '10.88.0.9');
    await transfer(lab, 'a', 'plane', '10.88.0.9', 4);
    lab.ip('plane', 'addr flush dev va');
    const next = await up();
    await transfer(lab, 'a', 'b', '10.88.0.2', 4);
    expect(await programs(lab, 'plane', 'va', 'vb')).toBe(2);
    const stopped = new Promise((resolve) => next.once('close', resolve));
    next.kill('SIGTERM');
    await stopped;
    expect(await programs(lab, 'plane', 'va', 'vb', 'lo')).toBe(0);
  });
});

/** Two hosts with a guest each; an end that is not ours is the kernel's bridge and vxlan. */
async function overlay(
  lab: NetworkLab,
  underlay: 'tap' | 'udp',
  ours: readonly [boolean, boolean],
  kernelChecksum = 'noudpcsum',
): Promise<Array<Switch | undefined>> {
  lab.ip('p1', `link add wire type veth peer name wire netns ${lab.space('p2')}`);
  const planes: Array<Switch | undefined> = [];
  for (const index of [0, 1] as const) {
    const [host, guest] = [`p${index + 1}`, index === 0 ? 'a' : 'b'];
    lab.ip(host, 'link set wire mtu 1600 up');
    lab.ip(host, `addr add 172.16.0.${index + 1}/24 dev wire`);
    wire(lab, host, [[guest, index + 1]]);
    const [local, peer] = [`172.16.0.${index + 1}`, `172.16.0.${2 - index}`];
    if (!ours[index]) {
      lab.ip(host, 'link add br0 type bridge');
      lab.ip(
        host,
        `link add vx type vxlan id 42 local ${local} remote ${peer} dstport 4789 ${kernelChecksum}`,
      );
      for (const link of ['vx', `v${guest}`]) lab.ip(host, `link set ${link} master br0`);
      for (const link of ['vx', 'br0']) lab.ip(host, `link set ${link} mtu 1500 up`);
      planes.push(undefined);
      continue;
    }
    const plane = await Switch.start();
    const namespace = lab.path(host);
    await plane.apply({
      networks: {
        blue: {
          ...{ tunnel: 'vxlan', vni: 42, underlay: 'wire', local, peers: [peer] },
          tracking: true,
        },
      },
      ports: {
        guest: { interface: `v${guest}`, namespace, network: 'blue' },
        wire: { underlay, address: local, namespace, mtu: 1600 },
      },
    });
    planes.push(plane);
  }
  return planes;
}
