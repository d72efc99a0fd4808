// The switch between namespaces: real stacks on both sides, real tools.
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { Switch } from '../../src/network/switch.js';
import { lineOf, NetworkLab, networkUnavailable } from '../support/network-lab.js';

const unavailable = networkUnavailable(['iperf3', 'ping', 'nstat', 'ethtool', 'python3']);
const TIMEOUT_MS = 180_000;
const MEBIBYTE = 2 ** 20;

/** Sixteen megabytes that differ everywhere, and what they come to at the other end. */
const SEND_AND_HASH = `
import hashlib, random, socket, sys
data = random.Random(7).randbytes(16 << 20)
with socket.create_connection((sys.argv[1], 5299)) as out: out.sendall(data)
print(hashlib.sha256(data).hexdigest())`;
const RECEIVE_AND_HASH = `
import hashlib, socket
server = socket.create_server(('', 5299))
print('listening', flush=True)
peer, digest = server.accept()[0], hashlib.sha256()
while data := peer.recv(1 << 20): digest.update(data)
print(digest.hexdigest(), flush=True)`;

/** Hosts with eth0 on a veth whose other end `v<host>` is in `plane`. */
function wire(lab: NetworkLab, hosts: readonly string[]): void {
  hosts.forEach((host, i) => {
    lab.ip('plane', `link add v${host} type veth peer name eth0 netns ${lab.space(host)}`);
    lab.ip('plane', `link set v${host} up`);
    lab.ip(host, 'link set eth0 up');
    lab.ip(host, `addr add 10.88.0.${i + 1}/24 dev eth0`);
    lab.ip(host, `addr add fd88::${i + 1}/64 dev eth0 nodad`);
  });
}

const reaches = (lab: NetworkLab, from: string, to: string, withinSeconds = 10): Promise<boolean> =>
  lab.run(from, 'ping', '-c', '1', '-W', String(withinSeconds), to).then(
    () => true,
    () => false,
  );

/** Not within a second, that is. */
const reachesNot = async (lab: NetworkLab, from: string, to: string): Promise<boolean> =>
  !(await reaches(lab, from, to, 1));

describe.skipIf(unavailable !== undefined)('a switch between namespaces', () => {
  test('carries TCP both ways over IPv4 and IPv6, and tells what it did', {
    timeout: TIMEOUT_MS,
  }, async () => {
    await using lab = new NetworkLab('plane', 'a', 'b');
    wire(lab, ['a', 'b']);
    await using plane = await Switch.start();
    const namespace = lab.path('plane');
    await plane.apply({
      networks: { blue: { tracking: true } },
      ports: {
        a: { interface: 'va', namespace, network: 'blue' },
        b: { interface: 'vb', namespace, network: 'blue' },
      },
    });
    await lab.serveIperf('b');
    for (const server of ['10.88.0.2', 'fd88::2'])
      for (const options of [
        ['-n', '50M'],
        ['-n', '50M', '-R'],
      ]) {
        const report = await lab.iperf('a', server, ...options);
        expect(report.end.sum_sent.bytes).toBeGreaterThanOrEqual(50 * MEBIBYTE);
      }
    expect(await lab.counter('a', 'TcpInCsumErrors')).toBe(0);
    expect(await lab.counter('b', 'TcpInCsumErrors')).toBe(0);
    const stats = plane.stats();
    // Each client ends with up to a send buffer of 4 MiB on the way, which nobody waits for.
    expect(stats.ports.a!.received.bytes).toBeGreaterThan(90 * MEBIBYTE);
    expect(stats.ports.b!.transmitted.bytes).toBe(stats.ports.a!.received.bytes);
    expect(stats.counters.flowHits!).toBeGreaterThan(stats.counters.flowMisses!);
    const view = plane.show();
    expect(view.addresses.map(({ via }) => via).sort()).toEqual(['a', 'b']);
    expect(view.connections.some(({ flow }) => /^tcp 10\.88\.0\.1:\d+ > 10\.88\.0\.2:5201$/.test(flow))).toBe(
      true,
    );
    expect(plane.explainIdle()[0]!.text).toMatch(/Last went to sleep|Stays awake|awake/);
  });

  test('a configuration is applied whole or not at all, while traffic flows', {
    timeout: TIMEOUT_MS,
  }, async () => {
    await using lab = new NetworkLab('plane', 'a', 'b', 'c');
    wire(lab, ['a', 'b', 'c']);
    await using plane = await Switch.start();
    const namespace = lab.path('plane');
    const ports = {
      a: { interface: 'va', namespace, network: 'blue' },
      b: { interface: 'vb', namespace, network: 'blue' },
    };
    const base = { networks: { blue: {} }, ports };
    await plane.apply(base);
    expect(await reaches(lab, 'a', '10.88.0.2')).toBe(true);

    await expect(plane.apply({ ...base, rules: [{ meter: 'none' }] })).rejects.toMatchObject({
      code: 'CONFIG',
    });
    const missing = { interface: 'vz', namespace, network: 'blue' };
    await expect(plane.apply({ ...base, ports: { ...ports, c: missing } })).rejects.toMatchObject({
      code: 'PORT',
      errno: 'ENODEV',
    });
    expect(Object.keys(plane.stats().ports)).toEqual(['a', 'b']);
    expect(await reaches(lab, 'a', '10.88.0.2')).toBe(true);

    await plane.apply({ ...base, rules: [{ name: 'no-ping', match: { protocol: 'icmp' }, action: 'drop' }] });
    expect(await reachesNot(lab, 'a', '10.88.0.2')).toBe(true);
    expect(await reaches(lab, 'a', 'fd88::2')).toBe(true);
    expect(plane.stats().rules).toEqual([{ name: 'no-ping', packets: 1, bytes: 98 }]);

    const c = { interface: 'vc', namespace, network: 'blue' };
    await plane.apply({ ...base, ports: { a: ports.a, c } });
    expect(await reaches(lab, 'a', '10.88.0.3')).toBe(true);
    expect(await reachesNot(lab, 'a', '10.88.0.2')).toBe(true);
    await plane.apply({});
    expect(Object.keys(plane.stats().ports)).toEqual([]);
  });

  test('a port whose interface went is missed alone when a configuration is refused', {
    timeout: TIMEOUT_MS,
  }, async () => {
    await using lab = new NetworkLab('plane', 'a', 'b', 'c');
    wire(lab, ['a', 'b', 'c']);
    await using plane = await Switch.start();
    const namespace = lab.path('plane');
    const port = (link: string, queues = 1) => ({ interface: link, namespace, network: 'blue', queues });
    const networks = { blue: {} };
    const rules = [
      { name: 'from-b', match: { port: 'b' }, action: 'drop' as const },
      {
        name: 'no-telnet',
        match: { protocol: 'tcp' as const, destinationPorts: 23 },
        action: 'drop' as const,
      },
    ];
    await plane.apply({ networks, rules, ports: { a: port('va'), b: port('vb'), c: port('vc') } });
    lab.ip('plane', 'link del vb');

    const wrong = { a: port('va'), b: port('vz'), c: port('vc', 2) };
    const refused = plane.apply({ networks, rules, ports: wrong });
    await expect(refused).rejects.toMatchObject({ code: 'PORT', errno: 'ENODEV' });
    await expect(refused).rejects.toThrow(/interface vz.*not restored.*port b: .*interface vb/);
    expect(Object.keys(plane.stats().ports).sort()).toEqual(['a', 'c']);
    expect(Object.keys(plane.config.ports)).toEqual(['a', 'c']);
    expect(plane.stats().rules.map(({ name }) => name)).toEqual(['no-telnet']);
    expect(await reaches(lab, 'a', '10.88.0.3')).toBe(true);

    await plane.apply({ networks, ports: { a: port('va', 2), c: port('vc') } });
    expect(await reaches(lab, 'a', '10.88.0.3')).toBe(true);
    await expect(plane.apply({ networks, ports: { b: port('vb') } })).rejects.toThrow(/interface vb/);
    expect(await reaches(lab, 'a', '10.88.0.3')).toBe(true);
  });

  test('what is asked while ports are let go has those that are there', { timeout: TIMEOUT_MS }, async () => {
    await using lab = new NetworkLab('plane', 'a', 'b');
    wire(lab, ['a', 'b']);
    await using plane = await Switch.start();
    const namespace = lab.path('plane');
    const ports = { a: { interface: 'va', namespace }, b: { interface: 'vb', namespace } };
    await plane.apply({ ports });
    let applied = false;
    const applying = plane.apply({}).finally(() => {
      applied = true;
    });
    const begun = [];
    while (!applied) {
      expect(Object.values(plane.stats().ports)).not.toContain(undefined);
      if (begun.length < 50) begun.push(plane.capture());
      await new Promise(setImmediate);
    }
    await applying;
    for (const capture of begun) expect((await capture.stop()).packets).toBe(0);
  });

  test('underlays of long names have interfaces of their own', { timeout: TIMEOUT_MS }, async () => {
    await using lab = new NetworkLab('plane');
    lab.ip('plane', 'addr add 10.9.0.1/32 dev lo');
    lab.ip('plane', 'addr add 10.9.0.2/32 dev lo');
    await using plane = await Switch.start();
    const underlay = { underlay: 'udp' as const, namespace: lab.path('plane') };
    await plane.apply({
      ports: {
        'wire-to-the-east': { ...underlay, address: '10.9.0.1' },
        'wire-to-the-west': { ...underlay, address: '10.9.0.2' },
      },
    });
    const names = Object.values(plane.stats().ports).map(({ name }) => name);
    expect(new Set(names).size).toBe(2);
    for (const name of names) expect(name).toMatch(/^pst-wire-t-[0-9a-f]{4}$/);
  });

  test('a port counts from when it was attached, whoever had its number before', {
    timeout: TIMEOUT_MS,
  }, async () => {
    await using lab = new NetworkLab('plane', 'a', 'b');
    wire(lab, ['a', 'b']);
    await using plane = await Switch.start();
    const networks = { blue: {} };
    const port = { namespace: lab.path('plane'), network: 'blue' };
    const a = { ...port, interface: 'va' };
    const b = { ...port, interface: 'vb' };
    await plane.apply({ networks, ports: { a, b } });
    expect(await reaches(lab, 'a', '10.88.0.2')).toBe(true);
    await plane.setPortState('a', 'blocked');
    expect(await reachesNot(lab, 'a', '10.88.0.2')).toBe(true);
    expect(plane.port('a')!.drops['port-blocked']).toBeGreaterThan(0);

    const capture = plane.capture();
    await capture.started();
    await plane.apply({ networks, ports: { a: { ...a, queues: 2 }, b } });
    expect(plane.port('a')!.drops['port-blocked']).toBeUndefined();
    expect(await reaches(lab, 'a', '10.88.0.2')).toBe(true);
    const { ports } = await capture.stop();
    for (const counts of Object.values(ports)) {
      expect(counts.received).toBeGreaterThan(0);
      expect(counts.transmitted).toBeGreaterThan(0);
      expect(counts.dropped).toBeGreaterThanOrEqual(0);
    }

    await plane.apply({ networks });
    await plane.apply({ networks, ports: { c: { ...port, tap: 'tap-c' } } });
    const { received, transmitted } = plane.stats().ports.c!;
    // What a tap that comes up says of itself, no more.
    expect(received.packets).toBeLessThan(5);
    expect(transmitted.packets).toBe(0);
  });

  test("a port's MTU follows its interface, down and up, while TCP flows", {
    timeout: TIMEOUT_MS,
  }, async () => {
    await using lab = new NetworkLab('plane', 'a', 'b');
    wire(lab, ['a', 'b']);
    for (const [space, link] of [
      ['plane', 'va'],
      ['a', 'eth0'],
      ['b', 'eth0'],
    ] as const)
      lab.ip(space, `link set ${link} mtu 9000`);
    await using plane = await Switch.start();
    const namespace = lab.path('plane');
    await plane.apply({
      networks: { blue: { tracking: true } },
      ports: {
        a: { interface: 'va', namespace, network: 'blue' },
        b: { interface: 'vb', namespace, network: 'blue' },
      },
    });
    const { generation } = plane.counters();
    const ping = (bytes: number): Promise<string> =>
      lab
        .run('a', 'ping', '-M', 'do', '-c', '1', '-W', '10', '-s', String(bytes - 28), '10.88.0.2')
        .catch((error: Error) => error.message);
    const setMtu = async (mtu: number): Promise<void> => {
      lab.ip('plane', `link set vb mtu ${mtu}`);
      await expect.poll(() => plane.port('b')!.mtu).toBe(mtu);
      // What the sender's kernel remembers of the path is of before.
      await lab.run('a', 'ip', 'route', 'flush', 'cache');
    };
    await lab.serveIperf('b');
    const transmitted = () => plane.stats().ports.b!.transmitted.bytes;
    lab.start('a', 'iperf3', '-c', '10.88.0.2', '-t', '600');
    await expect.poll(transmitted).toBeGreaterThan(1e6);
    expect(await ping(1501)).toMatch(/mtu ?= ?1500/);
    await setMtu(1000);
    expect(await ping(1001)).toMatch(/mtu ?= ?1000/);
    expect(await ping(1000)).toContain('1 received');
    await setMtu(9000);
    expect(await ping(9000)).toContain('1 received');
    await setMtu(1400);
    expect(await ping(1401)).toMatch(/mtu ?= ?1400/);
    await setMtu(1500);
    const before = transmitted();
    await expect.poll(transmitted).toBeGreaterThan(before + 1e6);
    expect(await lab.counter('b', 'TcpInCsumErrors')).toBe(0);
    expect(plane.counters().generation).toBe(generation);
  });

  test('journals of interfaces whose owners and namespaces are gone are swept at the start, others stay', {
    timeout: TIMEOUT_MS,
  }, async () => {
    await using lab = new NetworkLab('plane', 'a');
    wire(lab, ['a']);
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
    const inode = statSync(lab.path('plane')).ino;
    const journal = (name: string, namespace: string, link: string, more = '', file = boot): string => {
      const path = join(lab.directory, `takeover-${name}.journal`);
      const text = `penstock takeover 1\nboot ${file}\nnamespace ${namespace}\nlink ${link}\n${more}end\n`;
      writeFileSync(path, text);
      return path;
    };
    const index = JSON.parse(lab.ip('plane', '-j link show va'))[0].ifindex as number;
    await lab.run('plane', 'sysctl', '-qw', 'net.ipv6.conf.va.disable_ipv6=1');
    const own = `${inode} ${lab.path('plane')}`;
    journal('1-3', '1 /run/netns/nobody-has-this', '3 veth0');
    journal('2-99', own, '99 gone0', 'sysctl ipv6/conf/gone0/disable_ipv6 0\ndown\n');
    journal('3-3', own, '3 va', '', 'another-boot');
    journal('4-3', `${inode + 1} ${lab.path('plane')}`, '3 va');
    writeFileSync(join(lab.directory, 'takeover-5-3.journal'), 'penstock takeover 1\nboot');
    journal('6-3', own, `${index} va`, 'sysctl ipv6/conf/va/disable_ipv6 0\n');
    const held = journal('7-3', own, `${index} va`);
    const holder = lab.start('plane', 'flock', '-n', held, 'sh', '-c', 'echo held; exec cat');
    await lineOf(holder, /held/);
    writeFileSync(join(lab.directory, 'notes.journal'), 'not ours');

    await using _ = await Switch.start({ workers: 1, runtimeDirectory: lab.directory });
    expect(readdirSync(lab.directory).sort()).toEqual(['notes.journal', 'takeover-7-3.journal']);
    expect(await lab.run('plane', 'sysctl', '-n', 'net.ipv6.conf.va.disable_ipv6')).toBe('0\n');
  });

  test('security groups let in what they name', { timeout: TIMEOUT_MS }, async () => {
    await using lab = new NetworkLab('plane', 'a', 'b');
    wire(lab, ['a', 'b']);
    await using plane = await Switch.start();
    const namespace = lab.path('plane');
    await plane.apply({
      networks: { blue: {} },
      ports: {
        a: { interface: 'va', namespace, network: 'blue' },
        b: { interface: 'vb', namespace, network: 'blue', groups: ['web'], addresses: ['10.88.0.2'] },
      },
      groups: { web: { in: [{ protocol: 'tcp', ports: 5201 }], out: [{}] } },
    });
    await lab.serveIperf('b');
    expect(await reachesNot(lab, 'a', '10.88.0.2')).toBe(true);
    expect(await reaches(lab, 'b', '10.88.0.1')).toBe(true);
    expect((await lab.iperf('a', '10.88.0.2', '-n', '5M')).end.sum_sent.bytes).toBeGreaterThan(4e6);
    expect(plane.stats().ports.a!.drops['security-group']).toBeGreaterThan(0);
  });

  test('makes superframes of segments that arrive one by one, and the bytes stay what they were', {
    timeout: TIMEOUT_MS,
  }, async () => {
    await using lab = new NetworkLab('plane', 'a', 'b');
    wire(lab, ['a', 'b']);
    // The sender's host segments and sums by itself.
    lab.ip('a', 'link set eth0 gso_max_segs 1');
    await lab.run('a', 'ethtool', '-K', 'eth0', 'tx', 'off', 'tso', 'off', 'gso', 'off');
    await using plane = await Switch.start();
    const namespace = lab.path('plane');
    const document = (coalesce?: boolean) => ({
      offload: 'off' as const, // what the kernel forwards is not coalesced
      networks: { blue: { tracking: true } },
      ports: {
        a: { interface: 'va', namespace, network: 'blue', ...(coalesce === undefined ? {} : { coalesce }) },
        b: { interface: 'vb', namespace, network: 'blue' },
      },
    });
    await plane.apply(document());
    expect(plane.port('a')!.coalesced.on).toBe(true);
    const received = lab.start('b', 'python3', '-c', RECEIVE_AND_HASH);
    await lineOf(received, /^listening$/);
    const hash = lineOf(received, /^[0-9a-f]{64}$/);
    const sent = await lab.run('a', 'python3', '-c', SEND_AND_HASH, '10.88.0.2');
    expect(await hash).toBe(sent.trim());
    const { coalesced, received: seen } = plane.port('a')!;
    expect(coalesced.merged).toBeGreaterThan(1000);
    expect(coalesced.badChecksum).toBe(0);
    // Bytes of what the switch saw, per packet it saw: more than one segment carries.
    expect(seen.bytes / seen.packets).toBeGreaterThan(2000);
    expect(await lab.counter('b', 'TcpInCsumErrors')).toBe(0);

    await plane.apply(document(false));
    expect(plane.port('a')!.coalesced.on).toBe(false);
    expect(await reaches(lab, 'a', '10.88.0.2')).toBe(true);
    await plane.apply(document(true));
    expect(plane.port('a')!.coalesced.merged).toBe(coalesced.merged);
  });

  test('a trace tells what would happen to a frame', { timeout: TIMEOUT_MS }, async () => {
    await using lab = new NetworkLab('a', 'b');
    await using plane = await Switch.start();
    await plane.apply({
      networks: { blue: {} },
      ports: {
        a: { tap: 'eth0', namespace: lab.path('a'), network: 'blue' },
        b: { tap: 'eth0', namespace: lab.path('b'), network: 'blue' },
      },
      rules: [{ name: 'odd', match: { etherType: 0x1234 }, action: 'drop' }],
    });
    const frame = Buffer.from(`ffffffffffff02000000000a1234${'00'.repeat(46)}`, 'hex');
    const dropped = plane.trace('a', frame);
    expect(dropped.dropped).toBe('rule');
    frame.writeUInt16BE(0x4321, 12);
    const passed = plane.trace('a', frame);
    expect(passed.outputs.map(({ port }) => port)).toEqual(['b']);
    expect(Buffer.from(passed.outputs[0]!.frame)).toEqual(frame);
    expect(passed.text).toContain('output       port 1 (b), 60 bytes');
    expect(() => plane.trace('z', frame)).toThrow('no port "z" (there are a, b)');
  });
});

describe.skipIf(unavailable !== undefined)('an overlay of two switches', () => {
  for (const underlay of ['tap', 'udp'] as const) {
    test(`carries guests' traffic through VXLAN (${underlay})`, { timeout: TIMEOUT_MS }, async () => {
      await using lab = new NetworkLab('h1', 'h2', 'g1', 'g2');
      lab.ip('h1', `link add wire type veth peer name wire netns ${lab.space('h2')}`);
      const hosts = ['h1', 'h2'] as const;
      hosts.forEach((host, i) => {
        lab.ip(host, 'link set wire mtu 1600 up');
        lab.ip(host, `addr add 10.99.0.${i + 1}/24 dev wire`);
      });
      await using first = await Switch.start();
      await using second = await Switch.start();
      for (const [i, plane] of [first, second].entries()) {
        const [local, peer] = i === 0 ? ['10.99.0.1', '10.99.0.2'] : ['10.99.0.2', '10.99.0.1'];
        await plane.apply({
          networks: {
            blue: { tunnel: 'vxlan', vni: 42, underlay: 'wire', local, peers: [peer], tracking: true },
          },
          ports: {
            guest: { tap: 'eth0', namespace: lab.path(`g${i + 1}`), network: 'blue' },
            wire: { underlay, namespace: lab.path(hosts[i]!), address: local, mtu: 1600 },
          },
        });
        lab.ip(`g${i + 1}`, `addr add 10.88.0.${i + 1}/24 dev eth0`);
      }
      expect(await reaches(lab, 'g1', '10.88.0.2')).toBe(true);
      await lab.serveIperf('g2');
      for (const options of [
        ['-n', '30M'],
        ['-n', '30M', '-R'],
      ]) {
        const report = await lab.iperf('g1', '10.88.0.2', ...options);
        expect(report.end.sum_sent.bytes).toBeGreaterThanOrEqual(30 * MEBIBYTE);
      }
      expect(await lab.counter('g1', 'TcpInCsumErrors')).toBe(0);
      expect(await lab.counter('g2', 'TcpInCsumErrors')).toBe(0);
      const view = first.show();
      expect(view.ports.wire!.coalesced.on).toBe(true);
      expect(view.ports.guest!.coalesced.on).toBe(false);
      expect(view.ports.wire!.underlay).toBe(underlay);
      expect(view.addresses.map(({ via }) => via).sort()).toEqual(['guest', 'peer 10.99.0.2']);
      expect(view.peers[0]!.transmitted).toBeGreaterThan(0);
    });
  }

  test('an underlay that is busy with one tunnel does not forget the others', {
    timeout: TIMEOUT_MS,
  }, async () => {
    await using lab = new NetworkLab('h1', 'h2', 'g1', 'g2');
    lab.ip('h1', `link add wire type veth peer name wire netns ${lab.space('h2')}`);
    await using first = await Switch.start();
    await using second = await Switch.start();
    const guests = [
      ['vxlan', 'blue', '10.88.0'],
      ['geneve', 'green', '10.89.0'],
      ['nvgre', 'red', '10.90.0'],
    ] as const;
    for (const [i, plane] of [first, second].entries()) {
      const [host, guest] = [`h${i + 1}`, `g${i + 1}`];
      const [local, peer] = [`10.99.0.${i + 1}`, `10.99.0.${2 - i}`];
      lab.ip(host, 'link set wire mtu 1600 up');
      lab.ip(host, `addr add ${local}/24 dev wire`);
      const shared = { vni: 42, underlay: 'wire', local, peers: [peer] };
      const namespace = lab.path(guest);
      await plane.apply({
        networks: Object.fromEntries(guests.map(([tunnel, name]) => [name, { tunnel, ...shared }])),
        ports: {
          ...Object.fromEntries(guests.map(([, name]) => [name, { tap: name, namespace, network: name }])),
          wire: { underlay: 'udp', namespace: lab.path(host), address: local, mtu: 1600 },
        },
      });
      for (const [, name, subnet] of guests) lab.ip(guest, `addr add ${subnet}.${i + 1}/24 dev ${name}`);
    }
    await lab.serveIperf('g2');
    const before = second.stats().ports.wire!.drops; // of guests that announced themselves before it was up
    const flood = lab.iperf('g1', '10.88.0.2', '-u', '-b', '0', '-l', '64', '-t', '3');
    for (const [, , subnet] of guests) {
      const answered = await lab.echoes('g1', `${subnet}.2`, 10, { paceMs: 50, patienceMs: 1000 });
      expect(new Set(answered).size).toBeGreaterThanOrEqual(5);
    }
    expect((await flood).end.sum!.packets).toBeGreaterThan(1000);
    expect(second.stats().ports.wire!.drops).toEqual(before);
  });
});
