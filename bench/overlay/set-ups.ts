// What the overlay benchmark compares: two hosts joined by an underlay, a guest behind each. Every set-up has namespaces of
// its own, so that all stand side by side and addresses are the same: guests 10.88.0.1 and .2, hosts 10.99.0.1 and .2.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../bindings/load.js';
import type { SwitchConfigInput } from '../../src/network/config.js';
import { lineOf, type NetworkLab } from '../../test/support/network-lab.js';
import { OpenVswitch } from '../../test/support/open-vswitch.js';

export const VNI = 42;
const UNDERLAY_MTU = 1600;
const RULES = 1000;

export interface SetUp {
  readonly name: string;
  /** Namespaces. */
  readonly client: string;
  readonly server: string;
  /** Where the underlay can be captured; absent where there is none, or none that a capture sees. */
  readonly host?: string;
  stop?(): Promise<void>;
}

export const GUESTS = ['10.88.0.1', '10.88.0.2'] as const;
const HOSTS = ['10.99.0.1', '10.99.0.2'] as const;

/** The namespaces of an overlay `id`. */
export const overlaySpaces = (id: string): string[] => [`${id}h1`, `${id}h2`, `${id}g1`, `${id}g2`];
export const plainSpaces = (id: string): string[] => [`${id}p`, `${id}g1`, `${id}g2`];

/** eth0 of guest `index` on a veth whose other end is `guest<index>` in `host`. */
function attachGuest(lab: NetworkLab, id: string, host: string, index: 0 | 1): string {
  const link = `guest${index + 1}`;
  const guest = `${id}g${index + 1}`;
  lab.ip(host, `link add ${link} type veth peer name eth0 netns ${lab.space(guest)}`);
  lab.ip(host, `link set ${link} up`);
  lab.ip(guest, 'link set eth0 up');
  lab.ip(guest, `addr add ${GUESTS[index]}/24 dev eth0`);
  return link;
}

function joinHosts(lab: NetworkLab, id: string, addressed: boolean): void {
  lab.ip(`${id}h1`, `link add wire type veth peer name wire netns ${lab.space(`${id}h2`)}`);
  for (const index of [0, 1] as const) {
    const host = `${id}h${index + 1}`;
    lab.ip(host, `link set wire mtu ${UNDERLAY_MTU} up`);
    if (addressed) lab.ip(host, `addr add ${HOSTS[index]}/24 dev wire`);
  }
}

const overlay = (name: string, id: string): SetUp => ({
  name,
  client: `${id}g1`,
  server: `${id}g2`,
  host: `${id}h1`,
});

/** The kernel's bridge, learning, with the kernel's vxlan device as a port. */
export function kernelOverlay(lab: NetworkLab, name: string, id: string): SetUp {
  joinHosts(lab, id, true);
  for (const index of [0, 1] as const) {
    const host = `${id}h${index + 1}`;
    const guest = attachGuest(lab, id, host, index);
    lab.ip(host, 'link add br0 type bridge');
    const ends = `local ${HOSTS[index]} remote ${HOSTS[1 - index]}`;
    lab.ip(host, `link add vxlan0 type vxlan id ${VNI} ${ends} dstport 4789`);
    for (const link of [guest, 'vxlan0']) lab.ip(host, `link set ${link} master br0`);
    for (const link of ['vxlan0', 'br0']) lab.ip(host, `link set ${link} mtu 1500 up`);
  }
  return overlay(name, id);
}

export function kernelBridge(lab: NetworkLab, name: string, id: string): SetUp {
  const host = `${id}p`;
  lab.ip(host, 'link add br0 type bridge');
  lab.ip(host, 'link set br0 up');
  for (const index of [0, 1] as const)
    lab.ip(host, `link set ${attachGuest(lab, id, host, index)} master br0`);
  return { name, client: `${id}g1`, server: `${id}g2` };
}

/** A thousand rules that none of the traffic meets; that they are looked at is their cost. */
function rules(): NonNullable<SwitchConfigInput['rules']> {
  return Array.from({ length: RULES }, (_, i) => ({
    name: `rule-${i}`,
    priority: i,
    match: {
      protocol: i % 2 === 0 ? ('tcp' as const) : ('udp' as const),
      destination: `10.77.${i >> 8}.${i & 255}/32`,
      destinationPorts: 10_000 + i,
    },
    action: 'drop' as const,
  }));
}

async function daemon(lab: NetworkLab, space: string, document: SwitchConfigInput): Promise<void> {
  const file = join(lab.directory, `${space}.yaml`);
  writeFileSync(file, JSON.stringify({ log: { level: 'warn' }, switch: document }));
  const main = join(packageRoot(), 'dist/src/cli/main.js');
  const runtime = `PENSTOCK_RUNTIME_DIR=${join(lab.directory, `run-${space}`)}`;
  const child = lab.start(space, 'env', runtime, process.execPath, main, 'up', file);
  child.stderr!.pipe(process.stderr);
  await lineOf(child, /Stop with Ctrl-C/);
}

/** Two daemons of ours. Learning, a thousand rules, connection tracking, counters. */
export async function ourOverlay(
  lab: NetworkLab,
  name: string,
  id: string,
  underlay: 'tap' | 'udp',
  offload: 'auto' | 'off',
): Promise<SetUp> {
  joinHosts(lab, id, true);
  for (const index of [0, 1] as const) {
    const host = `${id}h${index + 1}`;
    const guest = attachGuest(lab, id, host, index);
    const [local, peer] = [HOSTS[index], HOSTS[1 - index]!];
    await daemon(lab, host, {
      offload,
      networks: {
        blue: { tunnel: 'vxlan', vni: VNI, underlay: 'wire', local, peers: [peer], tracking: true },
      },
      ports: {
        guest: { interface: guest, network: 'blue' },
        wire: { underlay, address: local, mtu: UNDERLAY_MTU },
      },
      rules: rules(),
    });
  }
  return overlay(name, id);
}

export async function ourSwitch(
  lab: NetworkLab,
  name: string,
  id: string,
  offload: 'auto' | 'off',
): Promise<SetUp> {
  const host = `${id}p`;
  const [first, second] = ([0, 1] as const).map((index) => attachGuest(lab, id, host, index));
  await daemon(lab, host, {
    offload,
    networks: { blue: { tracking: true } },
    ports: {
      first: { interface: first!, network: 'blue' },
      second: { interface: second!, network: 'blue' },
    },
    rules: rules(),
  });
  return { name, client: `${id}g1`, server: `${id}g2` };
}

/** How Open vSwitch is told to reach the guests: each is tried, the fastest is compared with. */
export const OPEN_VSWITCH_SETTINGS = {
  'packet sockets': [],
  'af_xdp without a polling thread': ['type=afxdp-nonpmd', 'options:n_rxq=1', 'options:xdp-mode=best-effort'],
  'af_xdp with a polling thread': ['type=afxdp', 'options:n_rxq=1', 'options:xdp-mode=best-effort'],
} as const satisfies Record<string, readonly string[]>;
export type OpenVswitchSetting = keyof typeof OPEN_VSWITCH_SETTINGS;

/**
 * Two instances of Open vSwitch's userspace data path. It completes no checksums: the guests do that themselves. What AF_XDP
 * takes and sends no capture sees.
 */
export async function openVswitchOverlay(
  lab: NetworkLab,
  name: string,
  id: string,
  setting: OpenVswitchSetting,
): Promise<SetUp> {
  joinHosts(lab, id, false);
  const instances: OpenVswitch[] = [];
  for (const index of [0, 1] as const) {
    const host = `${id}h${index + 1}`;
    const guest = attachGuest(lab, id, host, index);
    await lab.run(`${id}g${index + 1}`, 'ethtool', '-K', 'eth0', 'tx', 'off');
    const one = await OpenVswitch.start(lab, host);
    instances.push(one);
    await one.bridge([guest], { link: 'wire', addresses: [`${HOSTS[index]}/24`] });
    await one.tunnel('vxlan', { remote_ip: HOSTS[1 - index]!, key: VNI });
    const words = OPEN_VSWITCH_SETTINGS[setting];
    if (words.length > 0)
      for (const link of [guest, 'wire']) await one.set('set', 'interface', link, ...words);
  }
  const { host, ...rest } = overlay(name, id);
  const stop = async () => {
    for (const one of instances) await one.stop();
  };
  return { ...rest, stop, ...(setting === 'packet sockets' ? { host: host! } : {}) };
}
