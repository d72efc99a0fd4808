// Open vSwitch's userspace data path (netdev) inside one namespace of a lab: its own database, sockets and directory, so that
// neither the machine's service nor another test is met. The processes are the lab's children and end with it.
import type { ChildProcess } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { lineOn, type NetworkLab } from './network-lab.js';

const SCHEMA = '/usr/share/openvswitch/vswitch.ovsschema';
/** What must be on PATH. */
export const OPEN_VSWITCH = [
  'ovs-vswitchd',
  'ovsdb-server',
  'ovsdb-tool',
  'ovs-vsctl',
  'ovs-appctl',
  'ovs-ofctl',
] as const;

export class OpenVswitch {
  readonly #directory: string;
  readonly #children: ChildProcess[] = [];

  private constructor(
    private readonly lab: NetworkLab,
    readonly space: string,
  ) {
    this.#directory = join(lab.directory, `ovs-${space}`);
  }

  static async start(lab: NetworkLab, space: string): Promise<OpenVswitch> {
    const one = new OpenVswitch(lab, space);
    mkdirSync(one.#directory);
    const database = join(one.#directory, 'conf.db');
    await lab.run(space, 'ovsdb-tool', 'create', database, SCHEMA);
    const server = one.#start('ovsdb-server', database, `--remote=p${one.#database}`);
    await lineOn(server.stderr!, /ovsdb-server \(Open vSwitch\)/);
    await one.set('--no-wait', 'init');
    const daemon = one.#start('ovs-vswitchd', one.#database);
    await lineOn(daemon.stderr!, /ovs-vswitchd \(Open vSwitch\)/);
    return one;
  }

  /** `ovs-vsctl` with these words; answers its output. Waits until the switch has done what it says. */
  async set(...words: readonly string[]): Promise<string> {
    return this.lab.run(this.space, 'ovs-vsctl', `--db=${this.#database}`, '--timeout=50', ...words);
  }

  /** `ovs-appctl` of the switch. */
  async ask(...words: readonly string[]): Promise<string> {
    return this.lab.run(this.space, 'ovs-appctl', '-t', join(this.#directory, 'vswitchd.ctl'), ...words);
  }

  /** A bridge `br0` with ports, and the bridge `underlay` with the interface `wire`, whose address the tunnels have. */
  async bridge(
    ports: readonly string[],
    wire?: { readonly link: string; readonly addresses: readonly string[] },
  ) {
    const netdev = ['datapath_type=netdev'];
    await this.set('add-br', 'br0', '--', 'set', 'bridge', 'br0', ...netdev);
    for (const port of ports) await this.set('add-port', 'br0', port);
    if (wire === undefined) return;
    await this.set('add-br', 'underlay', '--', 'set', 'bridge', 'underlay', ...netdev);
    await this.set('add-port', 'underlay', wire.link);
    this.lab.ip(this.space, 'link set underlay up');
    for (const address of wire.addresses) this.lab.ip(this.space, `addr add ${address} dev underlay`);
  }

  /** A tunnel port of `br0`, with the options of ovs-vswitchd.conf.db(5). */
  async tunnel(
    type: 'vxlan' | 'geneve' | 'gre',
    options: Readonly<Record<string, string | number | boolean>>,
  ): Promise<void> {
    const words = Object.entries(options).map(([key, value]) => `options:${key}="${value}"`);
    await this.set('add-port', 'br0', 'tunnel', '--', 'set', 'interface', 'tunnel', `type=${type}`, ...words);
  }

  /** `ovs-ofctl` on one of its bridges: verb, bridge, arguments. */
  async flows(verb: string, bridge: string, ...words: readonly string[]): Promise<string> {
    return this.lab.run(
      this.space,
      'ovs-ofctl',
      verb,
      `unix:${join(this.#directory, `${bridge}.mgmt`)}`,
      ...words,
    );
  }

  /** Ends it before the lab does. */
  async stop(): Promise<void> {
    for (const child of this.#children.reverse()) {
      const ended = new Promise((resolve) => child.once('close', resolve));
      child.kill('SIGTERM');
      await ended;
    }
  }

  get #database(): string {
    return `unix:${join(this.#directory, 'db.sock')}`;
  }

  #start(program: string, ...argv: readonly string[]) {
    const directory = this.#directory;
    const places = ['RUN', 'LOG', 'DB', 'SYSCONF'].map((what) => `OVS_${what}DIR=${directory}`);
    const control = join(directory, program === 'ovs-vswitchd' ? 'vswitchd.ctl' : 'db.ctl');
    const child = this.lab.start(
      this.space,
      'env',
      ...places,
      program,
      ...argv,
      `--unixctl=${control}`,
      `--pidfile=${join(directory, `${program}.pid`)}`,
    );
    this.#children.push(child);
    return child;
  }
}
