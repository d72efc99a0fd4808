// Our tunnels and Open vSwitch's: its userspace data path is the other end. It completes no checksums and takes no superframes,
// so the interfaces before it have their offloads off and everything on the wire is finished there.
import { describe, expect, test } from 'vitest';
import { Switch } from '../../src/network/switch.js';
import { NetworkLab, networkUnavailable } from '../support/network-lab.js';
import { OPEN_VSWITCH, OpenVswitch } from '../support/open-vswitch.js';

const unavailable = networkUnavailable(['iperf3', 'ping', 'nstat', 'ethtool', ...OPEN_VSWITCH]);
const TIMEOUT_MS = 180_000;
const VNI = 42;
/** The key of GRE holds NVGRE's network in its upper 24 bits and a flow in the lower 8 (RFC 7637, 3.2). */
const KEY = VNI << 8;
const READY_MS = 30_000;
const ENDS = { 4: ['10.99.0.1', '10.99.0.2'], 6: ['fd99::1', 'fd99::2'] } as const;

const CASES = [
  { tunnel: 'vxlan', version: 4, underlay: 'tap', type: 'vxlan', options: { key: VNI } },
  { tunnel: 'vxlan', version: 4, underlay: 'udp', type: 'vxlan', options: { key: VNI, csum: true } },
  { tunnel: 'vxlan', version: 6, underlay: 'udp', type: 'vxlan', options: { key: VNI, csum: true } },
  { tunnel: 'geneve', version: 4, underlay: 'tap', type: 'geneve', options: { key: VNI } },
  { tunnel: 'geneve', version: 4, underlay: 'udp', type: 'geneve', options: { key: VNI } },
  { tunnel: 'nvgre', version: 4, underlay: 'tap', type: 'gre', options: { in_key: 'flow', out_key: KEY } },
  { tunnel: 'nvgre', version: 4, underlay: 'udp', type: 'gre', options: { in_key: 'flow', out_key: KEY } },
] as const;

/** Ours is host h1 with guest g1, Open vSwitch is h2 with g2. */
async function wire(lab: NetworkLab): Promise<OpenVswitch> {
  // A guest that announced itself before the wire is there would be counted as dropped.
  for (const guest of ['g1', 'g2'])
    await lab.run(guest, 'sysctl', '-qw', 'net.ipv6.conf.default.disable_ipv6=1');
  lab.ip('h1', `link add wire type veth peer name wire netns ${lab.space('h2')}`);
  for (const host of ['h1', 'h2']) lab.ip(host, 'link set wire mtu 1600 up');
  lab.ip('h1', 'addr add 10.99.0.1/24 dev wire');
  lab.ip('h1', 'addr add fd99::1/64 dev wire nodad');
  lab.ip('h2', `link add guest type veth peer name eth0 netns ${lab.space('g2')}`);
  lab.ip('h2', 'link set guest up');
  lab.ip('g2', 'link set eth0 up');
  lab.ip('g2', 'addr add 10.88.0.2/24 dev eth0');
  await lab.run('h1', 'ethtool', '-K', 'wire', 'tx', 'off');
  await lab.run('g2', 'ethtool', '-K', 'eth0', 'tx', 'off');
  const peer = await OpenVswitch.start(lab, 'h2');
  await peer.bridge(['guest'], { link: 'wire', addresses: ['10.99.0.2/24', 'fd99::2/64'] });
  return peer;
}

async function answered(lab: NetworkLab, from: string, to: string): Promise<void> {
  const until = Date.now() + READY_MS;
  for (;;) {
    try {
      await lab.run(from, 'ping', '-c', '1', '-W', '1', to);
      return;
    } catch (error) {
      if (Date.now() > until) throw error;
    }
  }
}

describe.skipIf(unavailable !== undefined)('with Open vSwitch at the other end', () => {
  for (const { tunnel, version, underlay, type, options } of CASES) {
    test(`${tunnel} over IPv${version} (${underlay}): ping and TCP both ways`, {
      timeout: TIMEOUT_MS,
    }, async () => {
      await using lab = new NetworkLab('h1', 'h2', 'g1', 'g2');
      const peer = await wire(lab);
      const [local, remote] = ENDS[version];
      await peer.tunnel(type, { remote_ip: local, ...options });
      await using plane = await Switch.start();
      await plane.apply({
        networks: { blue: { tunnel, vni: VNI, underlay: 'wire', local, peers: [remote] } },
        ports: {
          guest: { tap: 'eth0', namespace: lab.path('g1'), network: 'blue' },
          wire: { underlay, namespace: lab.path('h1'), address: local, mtu: 1600 },
        },
      });
      lab.ip('g1', 'addr add 10.88.0.1/24 dev eth0');
      await answered(lab, 'g1', '10.88.0.2');
      await answered(lab, 'g2', '10.88.0.1');
      await lab.serveIperf('g2');
      for (const direction of [[], ['-R']]) {
        const { end } = await lab.iperf('g1', '10.88.0.2', '-n', '8M', ...direction);
        expect(end.sum_sent.bytes).toBeGreaterThanOrEqual(8 * 2 ** 20);
      }
      for (const guest of ['g1', 'g2']) expect(await lab.counter(guest, 'TcpInCsumErrors')).toBe(0);
      const view = plane.show();
      expect(view.addresses.map(({ via }) => via).sort()).toEqual(['guest', `peer ${remote}`]);
      expect(view.ports.wire!.drops).toEqual({});
      expect(await peer.ask('dpctl/dump-flows')).toContain(`dst=${local}`);
    });
  }

  test('GENEVE options that Open vSwitch sends are no obstacle, a critical one is refused', {
    timeout: TIMEOUT_MS,
  }, async () => {
    await using lab = new NetworkLab('h1', 'h2', 'g1', 'g2');
    const peer = await wire(lab);
    await peer.tunnel('geneve', { remote_ip: '10.99.0.1', key: VNI });
    await using plane = await Switch.start();
    await plane.apply({
      networks: {
        blue: { tunnel: 'geneve', vni: VNI, underlay: 'wire', local: '10.99.0.1', peers: ['10.99.0.2'] },
      },
      ports: {
        guest: { tap: 'eth0', namespace: lab.path('g1'), network: 'blue' },
        wire: { underlay: 'udp', namespace: lab.path('h1'), address: '10.99.0.1', mtu: 1600 },
      },
    });
    lab.ip('g1', 'addr add 10.88.0.1/24 dev eth0');
    // The uppermost bit of the type says critical (RFC 8926, 3.5).
    const options = ['0x55', '0xd5'].map((type, i) => `{class=0x0102,type=${type},len=4}->tun_metadata${i}`);
    await peer.flows('add-tlv-map', 'br0', options.join(','));
    const send = (field: string) =>
      peer.flows('add-flow', 'br0', `in_port=guest,actions=set_field:0x1234->${field},normal`);
    await send('tun_metadata0');
    await answered(lab, 'g2', '10.88.0.1');
    expect(plane.stats().ports.wire!.drops).toEqual({});
    await send('tun_metadata1');
    await expect(lab.run('g2', 'ping', '-c', '1', '-W', '1', '10.88.0.1')).rejects.toThrow(
      '100% packet loss',
    );
    expect(plane.stats().ports.wire!.drops['tunnel-option']).toBeGreaterThan(0);
  });
});
