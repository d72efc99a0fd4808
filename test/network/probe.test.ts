// Probes of tunnel endpoints: across a path with a narrower link than its ends know of, IPv4 and IPv6. The prober runs in a
// process of its own, inside the namespace.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { packageRoot } from '../../bindings/load.js';
import { type PeerProbe, Prober } from '../../src/network/probe.js';
import { lineOn, NetworkLab, networkUnavailable } from '../support/network-lab.js';

const unavailable = networkUnavailable();
const TIMEOUT_MS = 2000;
const SCRIPT = `
const { Prober } = await import(process.argv[1]);
const prober = new Prober();
const options = { mtuMax: 9000, timeoutMs: ${TIMEOUT_MS} };
const found = [];
for (const address of process.argv.slice(2)) found.push(await prober.probe(address, options));
console.log(JSON.stringify(found));
prober[Symbol.dispose]();
`;

const INET6 = '/proc/net/if_inet6';
const hasIpv6 =
  existsSync(INET6) && readFileSync(INET6, 'utf8').includes('00000000000000000000000000000001 ');

describe.skipIf(unavailable !== undefined)('probes of tunnel endpoints', () => {
  test.skipIf(!hasIpv6)('an address answers however it is written', async () => {
    using prober = new Prober();
    expect(await prober.echo('0:0:0:0:0:0:0:1', TIMEOUT_MS)).toBeGreaterThan(0);
    expect(await prober.echo('::0001', TIMEOUT_MS)).toBeGreaterThan(0);
  });

  test('reachability, round-trip time and path MTU', { timeout: 180_000 }, async () => {
    await using lab = new NetworkLab('here', 'router', 'there');
    // here --9000-- router --1400-- there: only the router knows.
    for (const [host, net, mtu] of [
      ['here', 1, 9000],
      ['there', 2, 1400],
    ] as const) {
      lab.ip('router', `link add to-${host} type veth peer name eth0 netns ${lab.space(host)}`);
      lab.ip('router', `link set to-${host} mtu ${mtu} up`);
      lab.ip(host, `link set eth0 mtu ${mtu} up`);
      lab.ip('router', `addr add 10.50.${net}.1/24 dev to-${host}`);
      lab.ip('router', `addr add fd50:${net}::1/64 dev to-${host} nodad`);
      lab.ip(host, `addr add 10.50.${net}.2/24 dev eth0`);
      lab.ip(host, `addr add fd50:${net}::2/64 dev eth0 nodad`);
      lab.ip(host, `route add default via 10.50.${net}.1`);
      lab.ip(host, `-6 route add default via fd50:${net}::1`);
    }
    await lab.run(
      'router',
      'sh',
      '-c',
      'echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding',
    );

    const module = join(packageRoot(), 'dist/src/network/probe.js');
    const addresses = ['10.50.2.2', 'fd50:2::2', '10.50.1.1', '10.50.2.77'];
    const output = await lab.run(
      'here',
      process.execPath,
      '--input-type=module',
      '-e',
      SCRIPT,
      module,
      ...addresses,
    );
    const [far4, far6, near, nobody] = JSON.parse(output) as PeerProbe[];
    expect(far4).toMatchObject({ reachable: true, pathMtu: 1400 });
    expect(far6).toMatchObject({ reachable: true, pathMtu: 1400 });
    expect(near).toMatchObject({ reachable: true, pathMtu: 9000 });
    expect(near!.rttMs).toBeGreaterThan(0);
    expect(near!.rttMs).toBeLessThan(TIMEOUT_MS);
    expect(nobody).toEqual({ address: '10.50.2.77', reachable: false, sent: 2, answered: 0 });
  });

  test('the daemon probes the peers of its underlay and heeds what it finds', {
    timeout: 180_000,
  }, async () => {
    await using lab = new NetworkLab('here', 'there', 'guest');
    // A veth takes four bytes more than its MTU, for a tag: the path takes 1450.
    lab.ip('here', `link add wire type veth peer name wire netns ${lab.space('there')}`);
    for (const [host, address] of [
      ['here', 1],
      ['there', 2],
    ] as const) {
      lab.ip(host, `link set wire mtu ${host === 'here' ? 1600 : 1446} up`);
      lab.ip(host, `addr add 10.51.0.${address}/24 dev wire`);
    }
    const config = {
      switch: {
        networks: {
          blue: { tunnel: 'vxlan', vni: 1, underlay: 'wire', local: '10.51.0.1', peers: ['10.51.0.2'] },
        },
        ports: {
          wire: { underlay: 'udp', address: '10.51.0.1', mtu: 1600 },
          guest: { tap: 'eth0', namespace: lab.path('guest'), network: 'blue' },
        },
      },
    };
    writeFileSync(join(lab.directory, 'penstock.yaml'), JSON.stringify(config));
    const main = join(packageRoot(), 'dist/src/cli/main.js');
    const place = ['env', `PENSTOCK_RUNTIME_DIR=${join(lab.directory, 'run')}`, process.execPath, main];
    const [program, ...argv] = place as [string, ...string[]];
    const daemon = lab.start('here', program, ...argv, 'up', join(lab.directory, 'penstock.yaml'));
    await lineOn(daemon.stderr!, /the peer answers/);
    const shown = JSON.parse(await lab.run('here', program, ...argv, 'switch', 'show', '--json'));
    expect(shown.peers).toMatchObject([{ address: '10.51.0.2', probe: { reachable: true, pathMtu: 1450 } }]);
    const text = await lab.run('here', program, ...argv, 'switch', 'show');
    expect(text).toMatch(/10\.51\.0\.2 +\d+ +\d+ +yes +[\d.]+ ms +1450/);
    // What no longer fits is refused with the path's MTU: 1450 less 50 bytes of headers.
    const trace = ['switch', 'trace', 'guest', 'udp 10.0.0.1:1 > 10.0.0.2:2', '--payload', '1400', '--json'];
    expect(JSON.parse(await lab.run('here', program, ...argv, ...trace)).dropped).toBe('too-big');
  });
});
