// The switch as scripts and the daemon use it.
//
//   const plane = await Switch.start();
//   await plane.apply({ networks: { blue: {} }, ports: { a: { tap: 'tap-a', network: 'blue' }, b: { interface: 'veth-b', network: 'blue' } } });
//   plane.trace('a', frame); plane.stats(); plane.explainIdle();
//   await plane.stop();
//
// `apply` is a transaction: the document is checked whole, ports that are new are attached, the tables are swapped while packets
// flow, ports that are gone are detached. Where any of that fails, what was attached is detached again and the configuration
// of before stays in force.
import { createHash, randomBytes } from 'node:crypto';
import type { CaptureRing } from '../../bindings/capture.js';
import { type PacketHandler, PacketRing } from '../../bindings/ring.js';
import {
  type DataPlane,
  type IdleExplanation,
  type NativeAddress,
  type NativeConnection,
  type NativePortFacts,
  type NativePortRestored,
  type OffloadFacts,
  type PortState,
  startDataPlane,
  type TraceStep,
  type Traffic,
  type WorkerFacts,
} from '../../bindings/switch.js';
import { formatIp, formatMac, parseIp } from './addresses.js';
import { announcements, type MovedStation } from './announcement.js';
import { Capture, type CaptureOptions, type CaptureRequest, type PortTotals } from './capture.js';
import { compile, type NetworkGateway, type NetworkGateways, peersOf } from './compile.js';
import {
  type PortConfig,
  parseCaptureMatch,
  parseSwitchConfig,
  type SwitchConfig,
  type SwitchConfigInput,
  SwitchConfigReader,
} from './config.js';
import { NetworkError } from './errors.js';
import { nativeMatches } from './match.js';
import { Identifiers, Numbering } from './numbering.js';
import { type PeerProbe, type ProbeOptions, Prober } from './probe.js';
import { encodeGroup } from './records.js';
import { withoutPorts } from './without-ports.js';

const NETWORKS_MAX = 4096;
/** Stands for the number of a port that is still to be attached. */
const NOT_YET = 0;
const TICK_MS = 1000;
/** Identifier, packets, bytes. */
const RULE_COUNTS = 3;
const UNDERLAY_MTU = 1500;
const ANNOUNCE_AT_MS = [0, 150, 600];
/** Errors of importPort that speak of the image. */
const IMAGE_ERRORS: readonly (string | undefined)[] = ['EINVAL', 'EPROTO', 'EXDEV', 'EFBIG'];
const TUNNEL_PORTS = [4789, 6081];
const INTERFACE_NAME_MAX = 15;

export interface SwitchOptions {
  /** 0 or absent: by the number of processors. */
  readonly workers?: number;
  readonly idle?: IdleExplanation['mode'];
  /** Share of one processor that waiting for packets may take; 0.1 by default. */
  readonly spinShare?: number;
  /** Connections that are tracked at most. */
  readonly connections?: number;
  /** How long a learned address is kept without being heard of. */
  readonly ageSeconds?: number;
  /** Flows that the kernel forwards at most, where `offload` is on; 65536 by default. */
  readonly offloadedFlows?: number;
  /** After so long without a packet a flow goes back to user space; 30 by default. */
  readonly offloadIdleSeconds?: number;
  /** Where journals of interfaces that were taken over lie. */
  readonly runtimeDirectory?: string;
}

export interface RuleStats extends Traffic {
  readonly name: string;
}

export interface SwitchStats {
  readonly ports: Readonly<Record<string, NativePortFacts>>;
  readonly rules: readonly RuleStats[];
  readonly counters: Readonly<Record<string, number>>;
  readonly workers: readonly WorkerFacts[];
}

export interface SwitchView {
  readonly offload: OffloadFacts;
  /** As it was applied. */
  readonly config: SwitchConfigInput;
  readonly ports: Readonly<Record<string, NativePortFacts>>;
  readonly addresses: ReadonlyArray<
    Omit<NativeAddress, 'network' | 'port' | 'peer'> & { network: string; via: string }
  >;
  readonly connections: ReadonlyArray<Omit<NativeConnection, 'network'> & { network: string }>;
  readonly peers: ReadonlyArray<{
    readonly address: string;
    readonly received: number;
    readonly transmitted: number;
    /** What the last probe found; absent before it. */
    readonly probe?: PeerProbe;
  }>;
}

export interface TraceResult {
  readonly steps: readonly TraceStep[];
  readonly outputs: ReadonlyArray<{ readonly port: string; readonly frame: Uint8Array }>;
  /** The reason, when it ended in a drop. */
  readonly dropped?: string;
  /** The same for people, a line a step. */
  readonly text: string;
}

export type SettablePortState = Exclude<PortState, 'down'>;

export interface PortImport {
  /** Connections that were taken over. */
  readonly connections: number;
  /** That were taken over before and have gone on here. */
  readonly kept: number;
  /** That found no room in the table. */
  readonly withoutRoom: number;
  /** MAC addresses that are behind the port from now on. */
  readonly addresses: readonly string[];
}

interface Attached {
  readonly number: number;
  /** What it was attached as; a port whose definition changes in these is attached anew. */
  readonly identity: string;
  /** Of the ports that had its number before: the native side counts by number. */
  readonly before: NativePortFacts;
}

/** Whether `port` is an underlay that a network sends NVGRE by. */
function carriesNvgre(config: SwitchConfig, port: string): boolean {
  return Object.values(config.networks).some((one) => one.tunnel === 'nvgre' && one.underlay === port);
}

function identityOf(port: PortConfig, nvgre: boolean): string {
  const { tap, interface: link, underlay, script, namespace, queues, mtu, mac, address } = port;
  const text = (_: string, value: unknown): unknown =>
    typeof value === 'bigint' ? value.toString(16) : value;
  return JSON.stringify({ tap, link, underlay, script, namespace, queues, mtu, mac, address, nvgre }, text);
}

export class Switch implements AsyncDisposable {
  readonly #attached = new Map<string, Attached>();
  readonly #rings = new Map<string, PacketRing>();
  readonly #handlers = new Map<string, PacketHandler>();
  /** Stations of ports that were imported and are still to be announced. */
  readonly #moved = new Map<string, readonly MovedStation[]>();
  readonly #probes = new Map<string, PeerProbe>();
  readonly #captures = new Set<Capture>();
  readonly #networks = new Numbering(NETWORKS_MAX);
  readonly #rules = new Identifiers();
  readonly #meters = new Identifiers();
  readonly #reader = new SwitchConfigReader();
  #config: SwitchConfig = parseSwitchConfig({});
  #gateways: NetworkGateways = new Map();
  #document: SwitchConfigInput = {};
  /** The last transaction, settled or not: transactions run one after the other. */
  #last: Promise<unknown> = Promise.resolve();
  #stopped: Promise<void> | undefined;
  readonly #ticking: NodeJS.Timeout;

  private constructor(
    private readonly plane: DataPlane,
    private readonly options: SwitchOptions,
  ) {
    this.#ticking = setInterval(() => void this.#enqueue(() => this.plane.tick()), TICK_MS);
    this.#ticking.unref();
  }

  static async start(options: SwitchOptions = {}): Promise<Switch> {
    const seed = randomBytes(8).readBigUInt64LE();
    return new Switch(await kernel('start the packet plane', startDataPlane({ ...options, seed })), options);
  }

  /** Throws NetworkError: CONFIG (nothing was changed, the message names the key), PORT (an interface could not be attached). */
  async apply(document: SwitchConfigInput): Promise<void> {
    const config = this.#reader.read(document);
    return this.#enqueue(async () => {
      await this.#apply(config);
      this.#document = document;
    });
  }

  /**
   * Who is the gateway of a network whose configuration leaves that open (`gateway`), from now until this is called again or
   * a configuration comes without it. A transaction like `apply`; packets flow meanwhile. Throws NetworkError.
   */
  async setGateway(network: string, gateway: NetworkGateway): Promise<void> {
    return this.#enqueue(async () => {
      const gateways = new Map([...this.#gateways, [network, gateway]]);
      if (this.#config.networks[network]?.gateway === undefined) {
        if (gateway.current === undefined) return;
        throw new NetworkError(
          'CONFIG',
          `networks.${network}.gateway: missing; the network leases no gateway`,
        );
      }
      await this.#apply(this.#config, gateways);
    });
  }

  /** What is in force. */
  get config(): SwitchConfig {
    return this.#config;
  }

  /** The way that a frame received by `port` would take, without sending it: Ethernet header first, no checksum trailer. */
  trace(port: string, frame: Uint8Array): TraceResult {
    const traced = this.#running().trace(this.#number(port), frame);
    const { outputs, dropped } = traced;
    const steps = traced.steps.map((step) => this.#named(step));
    return {
      steps,
      outputs: outputs.map((output) => ({ port: this.#portName(output.port), frame: output.frame })),
      ...(dropped === undefined ? {} : { dropped }),
      text: steps.map(({ what, detail }) => `${what.padEnd(12)} ${detail}`).join('\n'),
    };
  }

  stats(): SwitchStats {
    const plane = this.#running();
    const traffic = new Map<string, { packets: number; bytes: number }>();
    const counts = plane.rules();
    for (let i = 0; i < counts.length; i += RULE_COUNTS) {
      const name = this.#ruleName(counts[i]!);
      const sum = traffic.get(name) ?? { packets: 0, bytes: 0 };
      sum.packets += Number(counts[i + 1]);
      sum.bytes += Number(counts[i + 2]);
      traffic.set(name, sum);
    }
    return {
      ports: this.#ports(),
      rules: [...traffic].map(([name, sum]) => ({ name, ...sum })),
      counters: plane.counters(),
      workers: plane.workers(),
    };
  }

  /** Packets in every way there is to look at them, and how full the tables are. */
  counters(): Record<string, number> {
    return this.#running().counters();
  }

  /** Undefined while the port is not attached. */
  port(name: string): NativePortFacts | undefined {
    const attached = this.#attached.get(name);
    return attached === undefined ? undefined : this.#facts(attached);
  }

  /** Configuration, ports, learned addresses, peers and the first `connections` tracked connections. */
  show(connections = 1000): SwitchView {
    const plane = this.#running();
    const network = (number: number): string => this.#networks.nameOf(number) ?? String(number);
    const peers = plane.peers();
    return {
      offload: plane.offload(),
      config: this.#document,
      ports: this.#ports(),
      addresses: plane.addresses().map(({ port, peer, ...entry }) => ({
        ...entry,
        network: network(entry.network),
        via: port === undefined ? `peer ${peers[peer!]?.address ?? peer}` : this.#portName(port),
      })),
      connections: plane.connections(connections).map((one) => ({ ...one, network: network(one.network) })),
      peers: peers.map((peer) => {
        const probe = this.#probes.get(peer.address);
        return probe === undefined ? peer : { ...peer, probe };
      }),
    };
  }

  /**
   * Asks every peer whose underlay is in this process's network namespace whether it is there, how far, and how large a packet its
   * path takes; what is found limits what is sent there from now on, and `show` tells it. Needs CAP_NET_RAW.
   */
  async probe(options: Omit<ProbeOptions, 'mtuMax'> = {}): Promise<PeerProbe[]> {
    const targets = this.#targets();
    if (targets.size === 0) return [];
    using prober = new Prober();
    const found = await Promise.all(
      [...targets].map(([address, mtuMax]) => prober.probe(address, { ...options, mtuMax })),
    );
    if (this.#stopped !== undefined) return found;
    const peers = this.plane.peers();
    for (const probe of found) {
      this.#probes.set(probe.address, probe);
      const index = peers.findIndex(({ address }) => address === probe.address);
      if (index >= 0) this.plane.setPathMtu(index, probe.pathMtu ?? 0);
    }
    return found;
  }

  /** Addresses of the peers that can be probed, and the MTU of the underlay before them. */
  #targets(): Map<string, number> {
    const targets = new Map<string, number>();
    for (const [name, network] of Object.entries(this.#config.networks)) {
      if (!this.canProbe(name)) continue;
      const { mtu = UNDERLAY_MTU } = this.#config.ports[network.underlay!]!;
      for (const peer of peersOf(network, this.#gateways.get(name))) targets.set(formatIp(peer), mtu);
    }
    return targets;
  }

  /** Whether the network has an underlay, in this process's network namespace. */
  canProbe(network: string): boolean {
    const { underlay } = this.#config.networks[network] ?? {};
    const port = underlay === undefined ? undefined : this.#config.ports[underlay];
    return port !== undefined && port.namespace === undefined;
  }

  /** Why each worker sleeps or stays awake. */
  explainIdle(): IdleExplanation[] {
    return this.#running()
      .workers()
      .map((worker) => worker.idle);
  }

  /**
   * Calls `handler` with every packet that rules punt to the script port `port`; `Verdict.drop` ends a packet, anything else
   * lets it go on to where it was going. Packets are handled in batches, in place: what must last is copied.
   */
  onPacket(port: string, handler: PacketHandler): void {
    this.#running();
    this.#handlers.set(port, handler);
  }

  /** Sends a frame into the plane as if it came in by the script port `port`. False: there is no room now. */
  send(port: string, frame: Uint8Array): boolean {
    this.#running();
    const ring = this.#rings.get(port);
    if (ring === undefined) throw new NetworkError('PORT', `"${port}" is no script port`);
    return ring.send(frame);
  }

  /**
   * Packets as they pass, for whoever looks at them: see capture.ts. Begins at once, with the ports that there are. Throws
   * NetworkError CONFIG for options that make no sense; what else is wrong is told by `started` and by reading.
   */
  capture(options: CaptureOptions = {}): Capture {
    const plane = this.#running();
    const source = {
      begin: (ring: CaptureRing, request: CaptureRequest) =>
        this.#enqueue(() => this.#beginCapture(ring, request)),
      end: async (number: number) => {
        try {
          return await this.#afterTheLast(() => kernel('end the capture', plane.endCapture(number)));
        } finally {
          this.#captures.delete(capture);
        }
      },
      portName: (number: number) => this.#portName(number),
      portNumber: (name: string) => this.#number(name),
      ruleName: (id: bigint) => this.#ruleName(id),
      traffic: () => this.#portTotals(),
    };
    const capture = new Capture(source, plane.workers().length, options);
    this.#captures.add(capture);
    capture.started().catch(() => this.#captures.delete(capture));
    return capture;
  }

  /**
   * `blocked`: the port neither gives nor takes packets. `forward-to-peer`: its stations live behind the host `peer` (a tunnel
   * address of its networks) now; what comes here for them is passed on there, what the port itself sends is dropped
   * (port-moved). In force when the promise is settled. Throws NetworkError: PORT (there is no such port), CONFIG (the peer is
   * missing, or none of a network's; nothing was changed).
   */
  async setPortState(
    port: string,
    state: SettablePortState,
    { peer }: { readonly peer?: string | undefined } = {},
  ): Promise<void> {
    const address = peer === undefined ? undefined : parseIp(peer);
    if ((state === 'forward-to-peer') !== (peer !== undefined))
      throw new NetworkError('CONFIG', 'peer: goes with the state "forward-to-peer", and with no other');
    if (peer !== undefined && address === undefined)
      throw new NetworkError('CONFIG', `peer: expected an IP address, got ${JSON.stringify(peer)}`);
    return this.#enqueue(async () => {
      const number = this.#number(port);
      const what = `set the state of port ${port}`;
      if (address !== undefined) return kernel(what, this.plane.forwardPort(number, address));
      await kernel(what, this.plane.setPortState(number, state as 'up' | 'blocked'));
      if (state === 'up') this.#announceMoved(port);
    });
  }

  /**
   * The state of a port as versioned bytes for the switch of another host: tracked connections with their counters, learned
   * addresses, what its rates have used up, the names of its networks and security groups. Times are relative. Changes nothing;
   * block the port first, so that nothing happens after it. Throws NetworkError PORT, CONFIG (an underlay).
   */
  exportPort(port: string): Promise<Uint8Array> {
    return this.#enqueue(() => kernel(`export port ${port}`, this.plane.exportPort(this.#number(port))));
  }

  /**
   * Takes over what `exportPort` gave on another host, into a port of the same networks and security groups, beside what this
   * switch knows. The stations behind the port are announced to their networks, now or once the port is `up`. Throws
   * NetworkError: IMAGE (damaged, of another version or another kind of port; nothing was changed), PORT.
   */
  importPort(port: string, image: Uint8Array): Promise<PortImport> {
    return this.#enqueue(async () => {
      const number = this.#number(port);
      const restored = await importing(port, this.plane.importPort(number, image));
      const { addresses, ...counts } = restored;
      this.#moved.set(port, addresses);
      const state = this.plane.port(number)?.state;
      if (state !== 'blocked' && state !== 'forward-to-peer') this.#announceMoved(port);
      return { ...counts, addresses: addresses.map(({ mac }) => formatMac(mac)) };
    });
  }

  /** Three times, since a broadcast may be lost and the way to a peer may not be there yet. */
  #announceMoved(port: string): void {
    const stations = this.#moved.get(port);
    this.#moved.delete(port);
    if (stations === undefined || stations.length === 0) return;
    const say = (): void => {
      const attached = this.#attached.get(port);
      const config = this.#config.ports[port];
      if (this.#stopped !== undefined || attached === undefined || config === undefined) return;
      // Without room the rest is said the next time.
      announcements(stations, config).every((frame) => this.plane.announce(attached.number, frame));
    };
    for (const delay of ANNOUNCE_AT_MS) {
      if (delay === 0) say();
      else setTimeout(say, delay).unref();
    }
  }

  /** Takes every port away and ends the workers; interfaces that were taken over are as they were before. */
  stop(): Promise<void> {
    this.#stopped ??= (async () => {
      clearInterval(this.#ticking);
      await Promise.allSettled([...this.#captures].map((capture) => capture.stop()));
      await this.#last.catch(() => undefined);
      await kernel('stop the packet plane', this.plane.stop());
      for (const name of [...this.#rings.keys()]) this.#closeRing(name);
    })();
    return this.#stopped;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  #running(): DataPlane {
    if (this.#stopped !== undefined) throw new NetworkError('STATE', 'the switch is stopped');
    return this.plane;
  }

  #enqueue<Result>(work: () => Promise<Result>): Promise<Result> {
    if (this.#stopped !== undefined)
      return Promise.reject(new NetworkError('STATE', 'the switch is stopped'));
    return this.#afterTheLast(work);
  }

  #afterTheLast<Result>(work: () => Promise<Result>): Promise<Result> {
    const next = this.#last.then(work, work);
    this.#last = next.catch(() => undefined);
    return next;
  }

  #number(port: string): number {
    const attached = this.#attached.get(port);
    if (attached !== undefined) return attached.number;
    const known = [...this.#attached.keys()].join(', ');
    throw new NetworkError('PORT', `no port "${port}" (there are ${known === '' ? 'none' : known})`);
  }

  #beginCapture(ring: CaptureRing, { ports, match, ...rest }: CaptureRequest): Promise<number> {
    const everyPort = ports?.includes('*') ?? !rest.drops;
    const matches =
      match === undefined
        ? []
        : nativeMatches(parseCaptureMatch(match), { port: () => NOT_YET, network: () => NOT_YET });
    const options = {
      ...rest,
      everyPort,
      ports: everyPort ? [] : (ports ?? []).map((name) => this.#number(name)),
      matches: encodeGroup(matches.map((one) => ({ direction: 'to-port', match: one }))),
    };
    const { plane } = this;
    return kernel(
      'begin a capture',
      plane.beginCapture(ring.memory, options, () => ring.kick()),
    );
  }

  #portTotals(): Map<string, PortTotals> {
    const totals = Object.entries(this.#ports()).map(([name, { received, transmitted, drops, lost }]) => {
      const dropped = Object.values(drops).reduce((sum, count) => sum + count, lost);
      const counted = { received: received.packets, transmitted: transmitted.packets, dropped };
      return [name, { ...counted, attached: this.#attached.get(name)! }] as const;
    });
    return new Map(totals);
  }

  /** As it was configured: one rule may be several native ones. */
  #ruleName(id: bigint): string {
    return this.#rules.nameOf(id)?.replace(/#\d+$/, '') ?? String(id);
  }

  /** The native side knows rules by their identifiers. */
  #named({ what, detail }: TraceStep): TraceStep {
    const id = what === 'rule' ? /^rule (\d+)/.exec(detail)?.[1] : undefined;
    const name = id === undefined ? undefined : this.#rules.nameOf(BigInt(id));
    return { what, detail: name === undefined ? detail : detail.replace(/^rule \d+/, name) };
  }

  /** The names that native rules have now, so that their counters keep them. */
  *#ruleNames(): Generator<string> {
    const counts = this.plane.rules();
    for (let i = 0; i < counts.length; i += RULE_COUNTS) {
      const name = this.#rules.nameOf(counts[i]!);
      if (name !== undefined) yield name;
    }
  }

  #portName(number: number): string {
    for (const [name, attached] of this.#attached) if (attached.number === number) return name;
    return `#${number}`;
  }

  /** Undefined of a port that is being let go. */
  #facts({ number, before }: Attached): NativePortFacts | undefined {
    const facts = this.#running().port(number);
    return facts === undefined ? undefined : since(before, facts);
  }

  #ports(): Record<string, NativePortFacts> {
    const ports: Record<string, NativePortFacts> = {};
    for (const [name, attached] of this.#attached) {
      const facts = this.#facts(attached);
      if (facts !== undefined) ports[name] = facts;
    }
    return ports;
  }

  async #apply(config: SwitchConfig, gateways = this.#kept(config)): Promise<void> {
    const fresh = new Map<string, Attached>();
    const changed = (name: string, port: PortConfig): boolean =>
      this.#attached.get(name)?.identity !== identityOf(port, carriesNvgre(config, name));
    const next = (name: string): number | undefined => (fresh.get(name) ?? this.#attached.get(name))?.number;
    const numbers = {
      network: (name: string) => this.#networks.of(name),
      rule: (name: string) => this.#rules.of(name),
      meter: (name: string) => this.#meters.of(name),
    };
    try {
      // Everything that can be wrong with the words is found before an interface is touched.
      let native = compile(config, { ...numbers, port: (name) => next(name) ?? NOT_YET }, gateways);
      const replaced = Object.entries(config.ports).filter(([name, port]) => changed(name, port));
      // An interface is one port's: those that are attached anew are let go first.
      const leaving = [...this.#attached].filter(
        ([name]) => config.ports[name] === undefined || changed(name, config.ports[name]),
      );
      if (leaving.length > 0) await this.#letGo(leaving.map(([name]) => name));
      for (const [name, port] of replaced) fresh.set(name, await this.#attach(config, name, port));
      if (fresh.size > 0) native = compile(config, { ...numbers, port: next }, gateways);
      await kernel('apply the configuration', this.plane.apply(native));
    } catch (error) {
      this.#networks.abandon();
      for (const [name, { number }] of fresh) {
        await this.plane.detach(number);
        this.#closeRing(name);
      }
      const lost = await this.#restore();
      throw lost.length === 0 ? error : worsened(error, lost);
    }
    for (const [name, attached] of fresh) this.#attached.set(name, attached);
    this.#networks.commit();
    this.#rules.keep(new Set(this.#ruleNames()));
    this.#meters.keep(new Set(Object.keys(config.meters)));
    this.#config = config;
    this.#gateways = gateways;
  }

  /** Gateways outlive a configuration that still leases one of the same service. */
  #kept(config: SwitchConfig): NetworkGateways {
    const service = ({ networks }: SwitchConfig, name: string) => networks[name]?.gateway?.service;
    const same = (name: string) =>
      service(config, name) !== undefined && service(config, name) === service(this.#config, name);
    return new Map([...this.#gateways].filter(([name]) => same(name)));
  }

  /** Applies what is in force without these ports, and detaches them. */
  async #letGo(names: readonly string[]): Promise<void> {
    const gone = new Set(names);
    const rest = withoutPorts(this.#config, gone);
    await kernel(
      'apply the configuration',
      this.plane.apply(compile(rest, this.#numbers(), this.#kept(rest))),
    );
    for (const name of names) {
      await kernel(`detach port ${name}`, this.plane.detach(this.#attached.get(name)!.number));
      this.#attached.delete(name);
      this.#closeRing(name);
    }
  }

  /**
   * After a refused configuration: ports that were let go come back, and the tables with them. Answers why some do not; what is
   * in force is without them until a configuration has them again.
   */
  async #restore(): Promise<string[]> {
    const missing = Object.entries(this.#config.ports).filter(([name]) => !this.#attached.has(name));
    const lost = new Map<string, string>();
    for (const [name, port] of missing)
      try {
        this.#attached.set(name, await this.#attach(this.#config, name, port));
      } catch (error) {
        lost.set(name, (error as Error).message);
      }
    if (lost.size > 0) {
      const rest = withoutPorts(this.#config, new Set(lost.keys()));
      this.#gateways = this.#kept(rest);
      this.#config = rest;
    }
    if (missing.length > 0)
      await kernel(
        'restore the configuration',
        this.plane.apply(compile(this.#config, this.#numbers(), this.#gateways)),
      );
    this.#networks.commit();
    return [...lost.values()];
  }

  #closeRing(name: string): void {
    this.#rings.get(name)?.close();
    this.#rings.delete(name);
  }

  #numbers() {
    return {
      port: (name: string) => this.#attached.get(name)?.number,
      network: (name: string) => this.#networks.of(name),
      rule: (name: string) => this.#rules.of(name),
      meter: (name: string) => this.#meters.of(name),
    };
  }

  async #attach(config: SwitchConfig, name: string, port: PortConfig): Promise<Attached> {
    const nvgre = carriesNvgre(config, name);
    const number = await this.#attachPort(name, port, nvgre);
    // Before any network knows it: not one packet passes.
    if (port.state === 'blocked')
      await kernel(`block port ${name}`, this.plane.setPortState(number, port.state));
    return { number, identity: identityOf(port, nvgre), before: this.plane.port(number)! };
  }

  #attachPort(name: string, port: PortConfig, nvgre: boolean): Promise<number> {
    const { namespace, queues, mtu, mac } = port;
    const at = `attach port ${name}`;
    if (port.tap !== undefined)
      return attaching(at, this.plane.attachTap({ name: port.tap, namespace, queues, mtu, mac }));
    if (port.interface !== undefined) {
      const { runtimeDirectory } = this.options;
      return attaching(
        at,
        this.plane.attachInterface({ name: port.interface, namespace, queues, runtimeDirectory }),
      );
    }
    if (port.underlay !== undefined) {
      const kind = port.underlay === 'auto' ? undefined : port.underlay;
      const addresses = port.address === undefined ? [] : [port.address];
      return attaching(
        at,
        this.plane.attachUnderlay({
          name: underlayTap(name),
          namespace,
          queues,
          mtu,
          kind,
          addresses,
          ports: TUNNEL_PORTS,
          nvgre,
        }),
      );
    }
    const ring = new PacketRing((packet) => this.#handlers.get(name)?.(packet), { name });
    this.#rings.set(name, ring);
    return attaching(at, this.plane.attachRing(ring.port.handle()));
  }
}

/** What a port has counted of what is counted under its number. */
function since(before: NativePortFacts, { offloaded, ...facts }: NativePortFacts): NativePortFacts {
  const less = (now: Traffic, then: Traffic): Traffic => ({
    packets: now.packets - then.packets,
    bytes: now.bytes - then.bytes,
  });
  const drops = Object.entries(facts.drops)
    .map(([reason, count]) => [reason, count - (before.drops[reason] ?? 0)] as const)
    .filter(([, count]) => count > 0);
  const none = { packets: 0, bytes: 0 };
  return {
    ...facts,
    received: less(facts.received, before.received),
    transmitted: less(facts.transmitted, before.transmitted),
    drops: Object.fromEntries(drops),
    ...(offloaded === undefined
      ? {}
      : {
          offloaded: {
            ...offloaded,
            received: less(offloaded.received, before.offloaded?.received ?? none),
            transmitted: less(offloaded.transmitted, before.offloaded?.transmitted ?? none),
          },
        }),
  };
}

/** The tap of an underlay is an interface of the host: a name that no interface of the configuration has, and no other underlay. */
function underlayTap(port: string): string {
  const name = `pst-${port}`;
  if (name.length <= INTERFACE_NAME_MAX) return name;
  const told = createHash('sha256').update(port).digest('hex').slice(0, 4);
  return `${name.slice(0, INTERFACE_NAME_MAX - 5)}-${told}`;
}

async function attaching(what: string, call: Promise<number>): Promise<number> {
  try {
    return await call;
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException;
    const errno = code === undefined ? {} : { errno: code };
    throw new NetworkError('PORT', `${what}: ${message}`, { cause: error, ...errno });
  }
}

/** Why a configuration was refused, and what of the one before could not be had again. */
function worsened(error: unknown, lost: readonly string[]): NetworkError {
  const { code, errno } = error instanceof NetworkError ? error : { code: 'KERNEL' as const };
  return new NetworkError(
    code,
    `${(error as Error).message}; not restored to what was in force before: ${lost.join('; ')}`,
    { cause: error, ...(errno === undefined ? {} : { errno }) },
  );
}

async function importing(port: string, call: Promise<NativePortRestored>): Promise<NativePortRestored> {
  try {
    return await call;
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException;
    if (!IMAGE_ERRORS.includes(code)) throw error;
    throw new NetworkError('IMAGE', `import port ${port}: ${message}`, { cause: error });
  }
}

/** An error of the native side as one of ours. */
async function kernel<Result>(what: string, call: Promise<Result>): Promise<Result> {
  try {
    return await call;
  } catch (error) {
    if (error instanceof NetworkError) throw error;
    const { message, code } = error as NodeJS.ErrnoException;
    const errno = code === undefined ? {} : { errno: code };
    throw new NetworkError(code === 'EINVAL' ? 'CONFIG' : 'KERNEL', `${what}: ${message}`, {
      cause: error,
      ...errno,
    });
  }
}
