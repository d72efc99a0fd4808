// An interface is given back as it was, however the process that took it over ended, and a plane survives what happens to
// its interfaces: deleted, down, another MTU, and back again.
import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { describe, expect, test } from 'vitest';
import { NetworkLab, networkUnavailable } from '../support/network-lab.js';
import { Forwarder } from './forwarder.js';

const unavailable = networkUnavailable();
const TIMEOUT_MS = 180_000;

/** What a stranger can see of the plane's namespace. */
async function snapshot(lab: NetworkLab): Promise<Record<string, string>> {
  const links = JSON.parse(lab.ip('plane', '-j -d link show')) as Record<string, unknown>[];
  return {
    links: JSON.stringify(
      links.map(({ ifname, flags, mtu, promiscuity, address, operstate }) => ({
        ...{ ifname, flags, mtu, promiscuity, address, operstate },
      })),
      undefined,
      1,
    ),
    addresses: lab.ip('plane', '-o addr show').replaceAll(/valid_lft.*/g, ''),
    routes: lab.ip('plane', 'route show table all') + lab.ip('plane', '-6 route show table all'),
    nftables: await lab.run('plane', 'nft', 'list', 'ruleset'),
    sysctls: await lab.run('plane', 'sh', '-c', 'cd /proc/sys/net && grep -rs . ipv4/conf ipv6/conf; true'),
  };
}

/** Hosts a and b on veths of the plane; the plane's end of b's is down. */
function wire(lab: NetworkLab): void {
  for (const host of ['a', 'b']) {
    lab.ip('plane', `link add v${host} type veth peer name eth0 netns ${lab.space(host)}`);
    lab.ip(host, 'link set eth0 up');
    lab.ip(host, `addr add 10.78.0.${host === 'a' ? 1 : 2}/24 dev eth0`);
  }
  lab.ip('plane', 'link set va up');
}

async function settled(lab: NetworkLab): Promise<Record<string, string>> {
  // Duplicate address detection takes a second: until then the link-local address is tentative.
  await expect.poll(() => lab.ip('plane', '-6 addr show dev va')).toMatch(/scope link/);
  await expect.poll(() => lab.ip('plane', '-6 addr show')).not.toMatch(/tentative/);
  // Its routes come after it.
  for (let before = await snapshot(lab); ; ) {
    await pause(100);
    const now = await snapshot(lab);
    if (isDeepStrictEqual(now, before)) return now;
    before = now;
  }
}

const reaches = (lab: NetworkLab) => lab.run('a', 'ping', '-c', '1', '-W', '10', '10.78.0.2');

describe.skipIf(unavailable)('takeover', () => {
  test('stopped or killed, started again and stopped: everything is as it was', {
    timeout: TIMEOUT_MS,
  }, async () => {
    await using lab = new NetworkLab('plane', 'a', 'b');
    wire(lab);
    await lab.run('plane', 'sysctl', '-qw', 'net.ipv6.conf.vb.disable_ipv6=1');
    const before = await settled(lab);

    const ports = ['link:va', 'link:vb'] as const;
    const orderly = await Forwarder.start(lab, 'plane', ports);
    const during = await snapshot(lab);
    expect(during.nftables).toMatch(/table netdev penstock-va \{ # progname .*\n\s*flags owner/);
    expect(during.nftables).toMatch(/hook ingress device "vb" priority -1000; policy drop/);
    expect(during.sysctls).toContain('ipv6/conf/va/disable_ipv6:1');
    expect(JSON.parse(during.links!)[1].promiscuity).toBe(1);
    await reaches(lab);
    await orderly.stop();
    await expect.poll(() => settled(lab)).toEqual(before);

    const killed = await Forwarder.start(lab, 'plane', ports);
    await reaches(lab);
    await killed.kill();
    await expect.poll(async () => (await snapshot(lab)).nftables).toBe(before.nftables);
    expect((await snapshot(lab)).sysctls).not.toBe(before.sysctls);
    const again = await Forwarder.start(lab, 'plane', ports);
    await reaches(lab);
    await again.stop();
    await expect.poll(() => settled(lab)).toEqual(before);
    expect(readdirSync(join(lab.directory, 'run'))).toEqual([]);
  });

  test('renamed, it is given back under its new name, while we run and after we were killed', {
    timeout: TIMEOUT_MS,
  }, async () => {
    await using lab = new NetworkLab('plane', 'a', 'b');
    wire(lab);
    const given = async (link: string) => {
      const [{ promiscuity }] = JSON.parse(lab.ip('plane', `-j -d link show ${link}`));
      const ipv6 = await lab.run('plane', 'sysctl', '-n', `net.ipv6.conf.${link}.disable_ipv6`);
      return { promiscuity, disableIpv6: ipv6.trim() };
    };
    const rename = (from: string, to: string) => {
      lab.ip('plane', `link set ${from} down`);
      lab.ip('plane', `link set ${from} name ${to}`);
      lab.ip('plane', `link set ${to} up`);
    };
    const forwarder = await Forwarder.start(lab, 'plane', ['link:va', 'link:vb'], { queues: 2 });
    await reaches(lab);
    expect(await given('va')).toEqual({ promiscuity: 2, disableIpv6: '1' });
    rename('va', 'other');
    await expect.poll(() => given('other')).toEqual({ promiscuity: 0, disableIpv6: '0' });
    rename('other', 'va');
    await expect.poll(() => given('va')).toEqual({ promiscuity: 2, disableIpv6: '1' });
    await expect.poll(() => lab.run('a', 'ping', '-c', '1', '-W', '1', '10.78.0.2')).toContain('1 received');
    await forwarder.kill();

    rename('va', 'other');
    expect(await given('other')).toEqual({ promiscuity: 0, disableIpv6: '1' });
    lab.ip('plane', 'link add spare type veth peer name spare-end');
    const next = await Forwarder.start(lab, 'plane', ['link:spare', 'link:vb']);
    expect(await given('other')).toEqual({ promiscuity: 0, disableIpv6: '0' });
    await next.stop();
  });

  test('without IPv6, for want of a larger MTU, it is given back all the same', {
    timeout: TIMEOUT_MS,
  }, async () => {
    await using lab = new NetworkLab('plane', 'a', 'b');
    wire(lab);
    const forwarder = await Forwarder.start(lab, 'plane', ['link:va', 'link:vb']);
    lab.ip('plane', 'link set va mtu 1000');
    await forwarder.stop();
    expect(readdirSync(join(lab.directory, 'run'))).toEqual([]);
    expect(lab.ip('plane', 'link show vb')).not.toMatch(/[<,]UP[,>]/);
  });

  test("the kernel's own stack does not answer on it", { timeout: TIMEOUT_MS }, async () => {
    await using lab = new NetworkLab('plane', 'a', 'b');
    wire(lab);
    // Addresses elsewhere in the namespace would answer ARP on any interface.
    lab.ip('plane', 'addr add 10.78.0.99/32 dev lo');
    lab.ip('plane', 'route add 10.78.0.1 dev va');
    await lab.run('a', 'ping', '-c', '1', '-W', '10', '10.78.0.99');
    lab.ip('a', 'neigh flush all');
    const forwarder = await Forwarder.start(lab, 'plane', ['link:va', 'link:vb']);
    await expect(lab.run('a', 'ping', '-c', '1', '-W', '1', '10.78.0.99')).rejects.toThrow(/0 received/);
    await reaches(lab);
    await forwarder.stop();
  });

  test('an interface with an address, or of another process, is refused', {
    timeout: TIMEOUT_MS,
  }, async () => {
    await using lab = new NetworkLab('plane', 'a', 'b');
    wire(lab);
    lab.ip('plane', 'addr add 10.78.1.1/24 dev va');
    await expect(Forwarder.start(lab, 'plane', ['link:va', 'link:vb'])).rejects.toThrow(
      /interface va carries address 10\.78\.1\.1\/24/,
    );
    lab.ip('plane', 'addr del 10.78.1.1/24 dev va');
    const forwarder = await Forwarder.start(lab, 'plane', ['link:va', 'link:vb']);
    await expect(Forwarder.start(lab, 'plane', ['link:va', 'link:vb'])).rejects.toThrow(
      /va is taken over by another process/,
    );
    await expect(Forwarder.start(lab, 'plane', ['link:none', 'link:vb'])).rejects.toThrow(/No such device/);
    await forwarder.stop();
  });
});

describe.skipIf(unavailable)('what happens to an interface', () => {
  const state = async (forwarder: Forwarder) =>
    (await forwarder.report()).map((port) => port.state).join(' ');

  test('packet socket: down and up, another MTU, deleted and made anew', {
    timeout: TIMEOUT_MS,
  }, async () => {
    await using lab = new NetworkLab('plane', 'a', 'b');
    wire(lab);
    const forwarder = await Forwarder.start(lab, 'plane', ['link:va', 'link:vb'], { queues: 2 });
    await reaches(lab);

    lab.ip('plane', 'link set va down');
    await expect.poll(() => state(forwarder)).toBe('down up');
    lab.ip('plane', 'link set va up');
    await expect.poll(() => state(forwarder)).toBe('up up');
    await reaches(lab);

    lab.ip('plane', 'link set vb mtu 4000');
    await expect.poll(async () => (await forwarder.report())[1].mtu).toBe(4000);

    lab.ip('plane', 'link del va');
    await expect.poll(() => state(forwarder)).toBe('down up');
    await expect(lab.run('b', 'ping', '-c', '1', '-W', '1', '10.78.0.1')).rejects.toThrow(/0 received/);
    expect((await forwarder.report())[0].queues.some((queue) => (queue.drops['port-down'] ?? 0) > 0)).toBe(
      true,
    );

    lab.ip('plane', `link add va type veth peer name eth0 netns ${lab.space('a')}`);
    lab.ip('plane', 'link set va up');
    lab.ip('a', 'link set eth0 up');
    lab.ip('a', 'addr add 10.78.0.1/24 dev eth0');
    await expect.poll(() => state(forwarder)).toBe('up up');
    lab.ip('b', 'neigh flush all');
    await reaches(lab);
    await forwarder.stop();
  });

  test('packet socket: deleted and made anew while nobody listened', { timeout: TIMEOUT_MS }, async () => {
    await using lab = new NetworkLab('plane', 'a', 'b');
    wire(lab);
    const forwarder = await Forwarder.start(lab, 'plane', ['link:va', 'link:vb']);
    await reaches(lab);
    forwarder.signal('SIGSTOP');
    // More events than a socket holds: what became of va is not among those that it has.
    const flips = Array.from({ length: 2000 }, (_, i) => `link set vb mtu ${1400 + (i % 2)}`);
    writeFileSync(join(lab.directory, 'batch'), flips.join('\n'));
    lab.ip('plane', `-batch ${join(lab.directory, 'batch')}`);
    lab.ip('plane', 'link del va');
    lab.ip('plane', `link add va type veth peer name eth0 netns ${lab.space('a')}`);
    lab.ip('plane', 'link set va up');
    lab.ip('a', 'link set eth0 up');
    lab.ip('a', 'addr add 10.78.0.1/24 dev eth0');
    forwarder.signal('SIGCONT');
    lab.ip('b', 'neigh flush all');
    await reaches(lab);
    await forwarder.stop();
  });

  test('tap: deleted, made anew by somebody else, renamed away', { timeout: TIMEOUT_MS }, async () => {
    await using lab = new NetworkLab('plane', 'a', 'b');
    const ports = [`tap:eth0@${lab.path('a')}`, `tap:eth0@${lab.path('b')}`] as const;
    const forwarder = await Forwarder.start(lab, 'plane', ports);
    const address = () => {
      lab.ip('a', 'link set eth0 up');
      lab.ip('a', 'addr add 10.78.0.1/24 dev eth0');
    };
    address();
    lab.ip('b', 'addr add 10.78.0.2/24 dev eth0');
    await reaches(lab);
    lab.ip('a', 'link del eth0');
    await expect.poll(() => state(forwarder)).toBe('down up');
    lab.ip('a', 'tuntap add dev eth0 mode tap multi_queue vnet_hdr');
    address();
    await expect.poll(() => state(forwarder)).toBe('up up');
    lab.ip('b', 'neigh flush all');
    await reaches(lab);
    lab.ip('a', 'link set eth0 down');
    lab.ip('a', 'link set eth0 name other');
    await expect.poll(() => state(forwarder)).toBe('down up');
    await forwarder.stop();
  });
});
