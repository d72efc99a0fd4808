// From what a configuration says to what the native switch follows: names become numbers, lists become records, everything
// is checked before anything is handed over. A mistake is a NetworkError CONFIG that starts with the path of the bad key.
import type { NativeNetwork, NativePort, NativeRate, NativeSwitchConfig } from '../../bindings/switch.js';
import { formatIp, type IpAddress, type Prefix } from './addresses.js';
import type {
  GroupRuleConfig,
  NetworkConfig,
  PortConfig,
  RateConfig,
  RuleConfig,
  SwitchConfig,
} from './config.js';
import { NetworkError } from './errors.js';
import {
  ETHER_IPV4,
  ETHER_IPV6,
  MATCHES_MAX,
  matchCount,
  NativeMatch,
  nativeMatches,
  withProtocol,
} from './match.js';
import {
  encodeGroup,
  encodeRules,
  type NativeEffect,
  type NativeGroupRule,
  type NativeNat,
  type NativeRule,
} from './records.js';

/** Numbers that outlive one configuration: learned addresses, counters and meters are kept under them. */
export interface Numbers {
  /** Undefined for a port that is not attached. */
  port(name: string): number | undefined;
  network(name: string): number;
  rule(name: string): bigint;
  meter(name: string): bigint;
}

const UNTAGGED = 0xffff;
const BURST_BYTES_MIN = 64 * 1024;
const BURST_SECONDS = 0.01;
const RULES_MAX = 200_000;

const UDP = 17;
const ICMP6 = 58;
const DHCP = { client: 68, server: 67 } as const;
const DHCP6 = { client: 546, server: 547 } as const;
/** Router and neighbour discovery, and the multicast listener reports that snooping switches need (RFC 4890 4.4.1). */
const ICMP6_ALWAYS = [130, 131, 132, 133, 134, 135, 136, 143] as const;

function fail(path: string, message: string): never {
  throw new NetworkError('CONFIG', `${path}: ${message}`);
}

function listed(names: Iterable<string>): string {
  const all = [...names];
  return all.length === 0
    ? 'there are none'
    : `there are ${all.slice(0, 12).join(', ')}${all.length > 12 ? ', ...' : ''}`;
}

/** Peers of a network that no configuration names: whoever its gateway is at the moment. */
export interface NetworkGateway {
  /** What no station is known to have goes there too. */
  readonly current?: IpAddress;
  /** Gateways of before: what they still send to single stations comes in, nothing goes there. */
  readonly leaving?: readonly IpAddress[];
}

export type NetworkGateways = ReadonlyMap<string, NetworkGateway>;

export function compile(
  config: SwitchConfig,
  numbers: Numbers,
  gateways: NetworkGateways = new Map(),
): NativeSwitchConfig {
  return new Compiler(config, numbers, gateways).compile();
}

/** Static peers first, so that rules go on naming them by their place. */
export function peersOf(network: NetworkConfig, gateway: NetworkGateway = {}): readonly IpAddress[] {
  const { current } = gateway;
  if (current === undefined) return network.peers;
  const listed = network.peers.some((peer) => formatIp(peer) === formatIp(current));
  return listed ? network.peers : [...network.peers, current];
}

class Compiler {
  readonly #groupIndex: ReadonlyMap<string, number>;
  readonly #meterIndex: ReadonlyMap<string, number>;
  /** Interfaces, tunnel addresses and VNIs, and whose they are. */
  readonly #claimed = new Map<string, string>();

  constructor(
    private readonly config: SwitchConfig,
    private readonly numbers: Numbers,
    private readonly gateways: NetworkGateways,
  ) {
    this.#groupIndex = new Map(Object.keys(config.groups).map((name, index) => [name, index]));
    this.#meterIndex = new Map(Object.keys(config.meters).map((name, index) => [name, index]));
  }

  compile(): NativeSwitchConfig {
    const { config, numbers } = this;
    return {
      offload: config.offload === 'auto',
      ports: Object.entries(config.ports).map(([name, port]) => this.#port(name, port)),
      networks: Object.entries(config.networks).map(([name, network]) => this.#network(name, network)),
      rules: encodeRules(this.#rules()),
      groups: Object.entries(config.groups).map(([name, group]) => ({
        name,
        rules: encodeGroup([
          ...group.in.flatMap((rule, i) => this.#groupRule(rule, 'to-port', `groups.${name}.in[${i}]`)),
          ...group.out.flatMap((rule, i) => this.#groupRule(rule, 'from-port', `groups.${name}.out[${i}]`)),
          ...alwaysAllowed(),
        ]),
      })),
      meters: Object.entries(config.meters).map(([name, meter]) => ({
        id: numbers.meter(name),
        ...nativeRate(meter),
      })),
      mirrors: config.mirrors.map((mirror, i) => ({
        from: mirror.from === undefined ? undefined : this.#portNumber(mirror.from, `mirrors[${i}].from`),
        to: this.#portNumber(mirror.to, `mirrors[${i}].to`),
        received: mirror.direction !== 'out',
        transmitted: mirror.direction !== 'in',
      })),
    };
  }

  #portNumber(name: string, path: string): number {
    if (!Object.hasOwn(this.config.ports, name))
      fail(path, `no port "${name}" (${listed(Object.keys(this.config.ports))})`);
    return this.numbers.port(name) ?? fail(path, `port "${name}" is not attached`);
  }

  #networkNumber(name: string, path: string): number {
    if (!Object.hasOwn(this.config.networks, name))
      fail(path, `no network "${name}" (${listed(Object.keys(this.config.networks))})`);
    return this.numbers.network(name);
  }

  #port(name: string, port: PortConfig): NativePort {
    const at = `ports.${name}`;
    const kinds = (['tap', 'interface', 'underlay', 'script'] as const).filter(
      (kind) => port[kind] !== undefined && port[kind] !== false,
    );
    if (kinds.length !== 1)
      fail(
        at,
        `expected exactly one of tap, interface, underlay, script; got ${kinds.join(' and ') || 'none'}`,
      );
    const underlay = port.underlay !== undefined;
    if (underlay && port.address === undefined)
      fail(`${at}.address`, 'missing: the local tunnel address of the underlay');
    this.#alone(name, port, at);
    const attachments = Object.entries(port.vlans ?? {}).map(([vlan, network]) => {
      const id = Number(vlan);
      if (id < 1 || id > 4094) fail(`${at}.vlans.${vlan}`, 'expected a VLAN identifier from 1 to 4094');
      if (vlan !== String(id)) fail(`${at}.vlans.${vlan}`, `expected ${id}, without a zero before it`);
      return { network: this.#networkNumber(network, `${at}.vlans.${vlan}`), vlan: id };
    });
    if (port.network !== undefined)
      attachments.push({ network: this.#networkNumber(port.network, `${at}.network`), vlan: UNTAGGED });
    if (underlay && port.state !== 'up') fail(`${at}.state`, 'an underlay has no state of its own');
    if (underlay && attachments.length > 0) fail(at, 'an underlay carries tunnels and belongs to no network');
    if (port.coalesce !== undefined && port.script === true)
      fail(`${at}.coalesce`, 'has no meaning for a script port: what scripts send stays as it is');
    if (port.antiSpoof && port.mac === undefined)
      fail(`${at}.antiSpoof`, 'needs "mac": the address to be held to');
    return {
      id: this.#portNumber(name, at),
      name,
      underlay,
      attachments,
      coalesce: port.coalesce,
      antiSpoof: port.antiSpoof,
      mac: port.mac,
      addresses: port.addresses ?? [],
      receive: port.receive === undefined ? undefined : nativeRate(port.receive),
      transmit: port.transmit === undefined ? undefined : nativeRate(port.transmit),
      groups: port.groups.map((group, i) => this.#groupNumber(group, `${at}.groups[${i}]`)),
      isolated: port.isolated,
      offload: port.offload === 'auto',
    };
  }

  /** The kernel lets two have one tap, or one address, and gives either of them a part of what comes. */
  #alone(name: string, { namespace = '', ...port }: PortConfig, at: string): void {
    const claims = [
      ['tap', port.tap, `interface ${port.tap}`],
      ['interface', port.interface, `interface ${port.interface}`],
      ['address', port.underlay === undefined ? undefined : port.address, 'this tunnel address'],
    ] as const;
    for (const [key, value, what] of claims) {
      if (value === undefined) continue;
      const claim = `${typeof value === 'string' ? `interface ${value}` : formatIp(value)} ${namespace}`;
      this.#claim(claim, `port "${name}"`, `${at}.${key}`, what);
    }
  }

  #claim(claim: string, owner: string, path: string, what: string): void {
    const other = this.#claimed.get(claim);
    if (other !== undefined) fail(path, `${other} has ${what} already`);
    this.#claimed.set(claim, owner);
  }

  #groupNumber(name: string, path: string): number {
    return (
      this.#groupIndex.get(name) ??
      fail(path, `no security group "${name}" (${listed(this.#groupIndex.keys())})`)
    );
  }

  #network(name: string, network: NetworkConfig): NativeNetwork {
    const at = `networks.${name}`;
    const tunnelled = network.tunnel !== undefined;
    for (const key of ['vni', 'underlay', 'local'] as const) {
      if (tunnelled && network[key] === undefined) fail(`${at}.${key}`, 'missing: a tunnel needs it');
      if (!tunnelled && network[key] !== undefined) fail(`${at}.${key}`, 'has no meaning without "tunnel"');
    }
    if (tunnelled)
      this.#claim(`${network.tunnel} ${network.vni}`, `network "${name}"`, `${at}.vni`, 'this VNI');
    if (!tunnelled && network.peers.length > 0) fail(`${at}.peers`, 'has no meaning without "tunnel"');
    for (const key of ['gateway', 'offer'] as const)
      if (!tunnelled && network[key] !== undefined) fail(`${at}.${key}`, 'has no meaning without "tunnel"');
    if (network.gateway !== undefined && network.offer !== undefined)
      fail(`${at}.offer`, 'stands beside "gateway"; a network leases a gateway or is one');
    if (network.gateway !== undefined && network.learnPeers)
      fail(`${at}.learnPeers`, 'would go on flooding to gateways of before; expected false beside "gateway"');
    let underlay: number | undefined;
    if (network.underlay !== undefined) {
      underlay = this.#portNumber(network.underlay, `${at}.underlay`);
      if (this.config.ports[network.underlay]!.underlay === undefined)
        fail(`${at}.underlay`, `port "${network.underlay}" is no underlay`);
    }
    const { leaving = [], ...gateway } = this.gateways.get(name) ?? {};
    const ofVersion = (peer: IpAddress, path: string): void => {
      if (peer.version !== network.local?.version)
        fail(`${at}.${path}`, `${formatIp(peer)} is of another IP version than the local tunnel address`);
    };
    network.peers.forEach((peer, i) => {
      ofVersion(peer, `peers[${i}]`);
    });
    for (const peer of [gateway.current ?? [], leaving].flat()) ofVersion(peer, 'gateway');
    const peers = peersOf(network, gateway);
    const addresses = new Set(peers.map(formatIp));
    return {
      index: this.numbers.network(name),
      name,
      tunnel: network.tunnel ?? 'none',
      vni: network.vni ?? 0,
      underlay,
      local: network.local,
      peers,
      leaving: leaving.filter((peer) => !addresses.has(formatIp(peer))),
      learnPeers: network.learnPeers,
      outerChecksum: network.outerChecksum ?? !(network.tunnel === 'vxlan' && network.local?.version === 4),
      tracking: network.tracking,
      floodUnknown: network.floodUnknown,
      vlanTransparent: network.vlanTransparent,
      responders: network.responders,
    };
  }

  #rules(): NativeRule[] {
    const native: NativeRule[] = [];
    const names = new Set<string>();
    this.config.rules.forEach((rule, i) => {
      const at = `rules[${i}]`;
      const name = rule.name ?? at;
      if (names.has(name)) fail(`${at}.name`, `"${name}" is the name of another rule`);
      names.add(name);
      if (matchCount(rule.match) > MATCHES_MAX)
        fail(`${at}.match`, `stands for more than ${MATCHES_MAX} combinations`);
      const effect = this.#effect(rule, at);
      this.#matches(rule, at).forEach((match, k) => {
        native.push({ id: this.numbers.rule(k === 0 ? name : `${name}#${k}`), match, effect });
      });
      if (native.length > RULES_MAX) fail(at, `the rules stand for more than ${RULES_MAX} matches`);
    });
    return native;
  }

  #matches(rule: RuleConfig, at: string): readonly NativeMatch[] {
    return nativeMatches(rule.match, {
      port: (port) => this.#portNumber(port, `${at}.match.port`),
      network: (network) => this.#networkNumber(network, `${at}.match.network`),
    });
  }

  #effect(rule: RuleConfig, at: string): NativeEffect {
    const { action } = rule;
    const output =
      typeof action === 'string'
        ? undefined
        : 'output' in action
          ? this.#portNumber(action.output, `${at}.action.output`)
          : this.#scriptPort(action.punt, `${at}.action.punt`);
    const verdict =
      action === 'allow' ? 'normal' : action === 'drop' ? 'drop' : 'output' in action ? 'output' : 'punt';
    const meter =
      rule.meter === undefined
        ? undefined
        : (this.#meterIndex.get(rule.meter) ??
          fail(`${at}.meter`, `no meter "${rule.meter}" (${listed(this.#meterIndex.keys())})`));
    return {
      priority: rule.priority,
      verdict,
      engineSegments: rule.segment === 'engine',
      output,
      meter,
      mirror: rule.mirror === undefined ? undefined : this.#portNumber(rule.mirror, `${at}.mirror`),
      mark: rule.mark,
      dscp: rule.dscp,
      peer: this.#peer(rule, at),
      nat: this.#nat(rule, at),
    };
  }

  #scriptPort(name: string, path: string): number {
    const number = this.#portNumber(name, path);
    if (this.config.ports[name]!.script !== true) fail(path, `port "${name}" is no script port`);
    return number;
  }

  #peer(rule: RuleConfig, at: string): number | undefined {
    if (rule.encapsulate === undefined) return undefined;
    const network = rule.match.network;
    if (network === undefined) fail(`${at}.encapsulate`, 'needs "match.network": peers belong to a network');
    const wanted = formatIp(rule.encapsulate);
    const index = this.config.networks[network]?.peers.findIndex((peer) => formatIp(peer) === wanted) ?? -1;
    return index >= 0 ? index : fail(`${at}.encapsulate`, `${wanted} is no peer of network "${network}"`);
  }

  #nat(rule: RuleConfig, at: string): NativeNat | undefined {
    const { sourceNat, destinationNat } = rule;
    if (sourceNat !== undefined && destinationNat !== undefined)
      fail(`${at}.destinationNat`, 'one rule translates the source or the destination, not both');
    if (sourceNat !== undefined) return { kind: 'source', ...sourceNat };
    if (destinationNat === undefined) return undefined;
    const { address, port, mac } = destinationNat;
    return {
      kind: 'destination',
      address,
      mac,
      ports: port === undefined ? undefined : { first: port, last: port },
    };
  }

  /** An allow of a security group; several when it names lists. */
  #groupRule(rule: GroupRuleConfig, direction: NativeGroupRule['direction'], at: string): NativeGroupRule[] {
    const remotes = this.#remotes(rule, at);
    const toPort = direction === 'to-port';
    const ported = rule.ports !== undefined;
    if (ported && (rule.protocol === undefined || rule.protocol.some((p) => p !== 6 && p !== UDP)))
      fail(`${at}.ports`, 'needs "protocol" to be tcp, udp or both');
    const matches: NativeMatch[] = [];
    for (const protocol of rule.protocol ?? [undefined])
      for (const remote of remotes)
        for (const range of rule.ports ?? [undefined]) {
          const match = new NativeMatch();
          if (protocol !== undefined) withProtocol(match, protocol);
          if (remote !== undefined) toPort ? match.source(remote) : match.destination(remote);
          if (range !== undefined) match.ports('destination', range);
          if (rule.icmpType !== undefined) match.field(2, 0, rule.icmpType, 16);
          if (rule.icmpCode !== undefined) match.field(3, 0, rule.icmpCode, 16);
          matches.push(match);
        }
    if (matches.length > MATCHES_MAX) fail(at, `stands for more than ${MATCHES_MAX} combinations`);
    return matches.map((match) => ({ direction, match }));
  }

  #remotes(rule: GroupRuleConfig, at: string): ReadonlyArray<Prefix | undefined> {
    if (rule.remoteGroup === undefined) return rule.remote ?? [undefined];
    if (rule.remote !== undefined) fail(`${at}.remoteGroup`, 'stands beside "remote"; expected one of them');
    const group = rule.remoteGroup;
    this.#groupNumber(group, `${at}.remoteGroup`);
    return Object.values(this.config.ports)
      .filter((port) => port.groups.includes(group))
      .flatMap((port) => port.addresses ?? []);
  }
}

/** What no group can forbid, since nothing works without it: neighbour discovery, and a client's way to its address. */
function alwaysAllowed(): NativeGroupRule[] {
  const both = (match: NativeMatch): NativeGroupRule[] => [
    { direction: 'to-port', match },
    { direction: 'from-port', match },
  ];
  const discovery = ICMP6_ALWAYS.flatMap((type) =>
    both(new NativeMatch().etherType(ETHER_IPV6).protocol(ICMP6).field(2, 0, type, 16)),
  );
  const client = (
    type: number,
    ports: { readonly client: number; readonly server: number },
  ): NativeGroupRule[] => {
    const udp = (): NativeMatch => new NativeMatch().etherType(type).protocol(UDP);
    const exactly = (port: number) => ({ first: port, last: port });
    return [
      {
        direction: 'from-port',
        match: udp().ports('source', exactly(ports.client)).ports('destination', exactly(ports.server)),
      },
      {
        direction: 'to-port',
        match: udp().ports('source', exactly(ports.server)).ports('destination', exactly(ports.client)),
      },
    ];
  };
  return [...discovery, ...client(ETHER_IPV4, DHCP), ...client(ETHER_IPV6, DHCP6)];
}

function nativeRate({ rate, burst }: RateConfig): NativeRate {
  return {
    bitsPerSecond: rate,
    burstBytes: burst ?? Math.max(BURST_BYTES_MIN, Math.round((rate / 8) * BURST_SECONDS)),
  };
}
