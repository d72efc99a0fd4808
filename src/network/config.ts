// What a switch can be told to be. The same schema reads `penstock.yaml`, the file of `penstock switch apply` and what a script
// gives to `Switch.apply`.
//
//   networks: { blue: { tunnel: vxlan, vni: 100, underlay: wire, local: 172.16.0.1, peers: [172.16.0.2] } }
//   ports:
//     vm1:  { tap: tap-vm1, network: blue, mac: 02:00:00:00:00:01, addresses: [10.0.0.1], antiSpoof: true, groups: [web] }
//     wire: { underlay: auto, address: 172.16.0.1 }
//   groups: { web: { in: [{ protocol: tcp, ports: [80, 443] }], out: [{}] } }
//   rules:  [{ name: no-telnet, priority: 100, match: { protocol: tcp, destinationPorts: [23] }, action: drop }]
import { z } from 'zod';
import { explainIssues } from '../telemetry/schema-issues.js';
import { parseIp, parseMac, parsePorts, parsePrefix, parseRate } from './addresses.js';
import { NetworkError } from './errors.js';

/** A schema that reads text with one of the parsers of addresses.ts. */
function parsed<Out>(
  parse: (text: string) => Out | undefined,
  what: string,
): z.ZodType<NonNullable<Out>, string> {
  return z.string().transform((value, context) => {
    const result = parse(value);
    if (result !== undefined && result !== null) return result;
    context.addIssue({ code: 'custom', message: `expected ${what}, got ${JSON.stringify(value)}` });
    return z.NEVER;
  });
}

function parsedNumber<Out>(
  parse: (value: string | number) => Out | undefined,
  what: string,
): z.ZodType<NonNullable<Out>, string | number> {
  return z.union([z.string(), z.number()]).transform((value, context) => {
    const result = parse(value);
    if (result !== undefined && result !== null) return result;
    context.addIssue({ code: 'custom', message: `expected ${what}, got ${JSON.stringify(value)}` });
    return z.NEVER;
  });
}

const name = z
  .string()
  .regex(/^[A-Za-z0-9_.-]{1,64}$/, 'expected a name of letters, digits, ".", "_" and "-", at most 64');
const mac = parsed(parseMac, 'a MAC address such as 02:00:00:00:00:01');
const ip = parsed(parseIp, 'an IP address');
const prefix = parsed(parsePrefix, 'an address or a prefix such as 10.0.0.0/8 (bits beyond its length zero)');
const ports = parsedNumber(parsePorts, 'a port or a range such as 8000-8999');
const rate = parsedNumber(parseRate, 'a rate such as 100Mbit');
const vlanId = z.number().int().min(1).max(4094);
const interfaceName = z
  .string()
  .regex(/^[^\s/]{1,15}$/, 'expected an interface name: at most 15 characters, no "/" and no blank');

/** One or a list of them. */
function listOf<Item extends z.ZodType>(item: Item) {
  return z.union([item.transform((one) => [one]), z.array(item).min(1, 'expected at least one')]);
}

export const PROTOCOLS = { icmp: 1, tcp: 6, udp: 17, gre: 47, esp: 50, icmp6: 58, sctp: 132 } as const;
export const ETHER_TYPES = { ipv4: 0x0800, arp: 0x0806, ipv6: 0x86dd } as const;
export const STATES = ['new', 'established', 'related', 'invalid'] as const;
export const TUNNELS = ['vxlan', 'geneve', 'nvgre'] as const;
export const TCP_FLAGS = { fin: 1, syn: 2, rst: 4, psh: 8, ack: 16, urg: 32, ece: 64, cwr: 128 } as const;

const protocol = z.union([
  z.enum(Object.keys(PROTOCOLS) as Array<keyof typeof PROTOCOLS>).transform((key) => PROTOCOLS[key]),
  z.number().int().min(0).max(255),
]);
const etherType = z.union([
  z.enum(Object.keys(ETHER_TYPES) as Array<keyof typeof ETHER_TYPES>).transform((key) => ETHER_TYPES[key]),
  z.number().int().min(0x0600).max(0xffff),
]);
const byte = z.number().int().min(0).max(255);

const rateSchema = z.strictObject({
  rate,
  /** Bytes that may pass at once; default: 10 ms of the rate, at least 64 KiB. */
  burst: z.number().int().positive().optional(),
});

/** `syn, !ack`: flags that must be set and flags that must not be. */
const tcpFlags = z.string().transform((text, context) => {
  let mask = 0;
  let value = 0;
  for (const word of text.split(/[\s,]+/).filter((part) => part !== '')) {
    const flag = TCP_FLAGS[word.replace(/^!/, '') as keyof typeof TCP_FLAGS];
    if (flag === undefined) {
      const allowed = Object.keys(TCP_FLAGS).join(', ');
      context.addIssue({ code: 'custom', message: `unknown TCP flag "${word}" (allowed: ${allowed})` });
      return z.NEVER;
    }
    mask |= flag;
    if (!word.startsWith('!')) value |= flag;
  }
  return { mask, value };
});

const matchSchema = z.strictObject({
  port: listOf(name).optional(),
  network: name.optional(),
  vlan: vlanId.optional(),
  sourceMac: mac.optional(),
  destinationMac: mac.optional(),
  etherType: etherType.optional(),
  protocol: listOf(protocol).optional(),
  source: listOf(prefix).optional(),
  destination: listOf(prefix).optional(),
  sourcePorts: listOf(ports).optional(),
  destinationPorts: listOf(ports).optional(),
  icmpType: byte.optional(),
  icmpCode: byte.optional(),
  tcpFlags: tcpFlags.optional(),
  state: listOf(z.enum(STATES)).optional(),
  mark: z.number().int().min(0).max(0xffff).optional(),
  fragment: z.boolean().optional(),
});

/** What a frame tells of itself, for captures: the switch has decided nothing yet. */
const captureMatchSchema = matchSchema.omit({ port: true, network: true, state: true, mark: true });
const captureSchema = z.strictObject({ match: captureMatchSchema });

const sourceNat = z.strictObject({ address: ip, ports: ports.optional(), mac: mac.optional() });
const destinationNat = z.strictObject({
  address: ip,
  port: z.number().int().min(1).max(65535).optional(),
  mac: mac.optional(),
});

const actionSchema = z.union([
  z.enum(['allow', 'drop']),
  z.strictObject({ output: name }),
  z.strictObject({ punt: name }),
]);

const ruleSchema = z.strictObject({
  name: name.optional(),
  /** Higher wins; among equals the first. */
  priority: z.number().int().min(0).max(0xffff_ffff).default(0),
  match: matchSchema.default({}),
  action: actionSchema.default('allow'),
  meter: name.optional(),
  mirror: name.optional(),
  mark: z.number().int().min(0).max(0xffff).optional(),
  dscp: z.number().int().min(0).max(63).optional(),
  segment: z.enum(['egress', 'engine']).default('egress'),
  encapsulate: ip.optional(),
  sourceNat: sourceNat.optional(),
  destinationNat: destinationNat.optional(),
});

const groupRule = z.strictObject({
  protocol: listOf(protocol).optional(),
  ports: listOf(ports).optional(),
  icmpType: byte.optional(),
  icmpCode: byte.optional(),
  /** The other end: prefixes, or a group whose ports' addresses are meant. */
  remote: listOf(prefix).optional(),
  remoteGroup: name.optional(),
});

const portSchema = z.strictObject({
  /** One of these four says what the port is. */
  tap: interfaceName.optional(),
  interface: interfaceName.optional(),
  underlay: z.enum(['auto', 'tap', 'udp']).optional(),
  script: z.boolean().optional(),

  /** Path of a network namespace, such as /run/netns/blue. */
  namespace: z.string().min(1).optional(),
  queues: z.number().int().min(1).max(64).optional(),
  mtu: z.number().int().min(576).max(65535).optional(),
  network: name.optional(),
  vlans: z.record(z.string().regex(/^\d+$/, 'expected a VLAN identifier'), name).optional(),
  mac: mac.optional(),
  addresses: listOf(prefix).optional(),
  /** Make superframes of TCP segments that arrive one by one. Default: where the port's kernel side does not. */
  coalesce: z.boolean().optional(),
  antiSpoof: z.boolean().default(false),
  groups: z.array(name).default([]),
  isolated: z.boolean().default(false),
  /** Flows from and to this port may be forwarded by the kernel, where the switch has `offload` on. */
  offload: z.enum(['auto', 'off']).default('auto'),
  receive: rateSchema.optional(),
  transmit: rateSchema.optional(),
  /** What the port is when it is attached; later `Switch.setPortState` says. Not of an underlay. */
  state: z.enum(['up', 'blocked']).default('up'),
  /** Of an underlay: the tunnel address, one of the host's own. */
  address: ip.optional(),
});

const absolutePath = z.string().regex(/^\//, 'expected an absolute path');

/** A lease agent of another host is reached under certificates only. */
const agentKeys = {
  /** What producers and consumers agree to call it. */
  service: z.string().min(1).max(200),
  /** Default: the agent of this daemon, or of this host. */
  agent: z
    .string()
    .regex(/^(unix:\/.+|.+:\d+)$/, {
      error: (issue) => `expected unix:/PATH or HOST:PORT, got ${JSON.stringify(issue.input)}`,
    })
    .optional(),
  tls: z.strictObject({ ca: absolutePath, certificate: absolutePath, key: absolutePath }).optional(),
};

/** Takes what no station of the network is known to have: leased from a lease agent, not named here. */
const gatewaySchema = z.strictObject({
  ...agentKeys,
  /** It is asked so often whether it is there, milliseconds; an echo counts as lost after the same time, 250 at least. */
  probeMs: z.number().min(20).max(60_000).default(500),
});

/** This end of the network, leased to others as their gateway. */
const offerSchema = z.strictObject({
  ...agentKeys,
  mode: z.enum(['shared', 'exclusive']).default('shared'),
  /** Networks of other hosts that it serves at a time. */
  capacity: z.number().int().min(1).default(100),
  weight: z.number().positive().optional(),
});

const networkSchema = z.strictObject({
  tunnel: z.enum(TUNNELS).optional(),
  vni: z.number().int().min(0).max(0xff_ffff).optional(),
  underlay: name.optional(),
  local: ip.optional(),
  peers: z.array(ip).default([]),
  gateway: gatewaySchema.optional(),
  offer: offerSchema.optional(),
  learnPeers: z.boolean().default(false),
  /** Default: false for VXLAN over IPv4 (RFC 7348, 5), else true (RFC 8926, 3.3; RFC 8200, 8.1). */
  outerChecksum: z.boolean().optional(),
  tracking: z.boolean().default(false),
  floodUnknown: z.boolean().default(true),
  vlanTransparent: z.boolean().default(true),
  /** Addresses that the switch itself answers for. */
  responders: z.array(z.strictObject({ address: ip, mac })).default([]),
});

export const switchSchema = z.strictObject({
  /** Flows that are decided are forwarded by eBPF programs of the kernel, where it can (docs/flow-offload.md). */
  offload: z.enum(['auto', 'off']).default('auto'),
  networks: z.record(name, networkSchema).default({}),
  ports: z.record(name, portSchema).default({}),
  groups: z
    .record(name, z.strictObject({ in: z.array(groupRule).default([]), out: z.array(groupRule).default([]) }))
    .default({}),
  rules: z.array(ruleSchema).default([]),
  meters: z.record(name, rateSchema).default({}),
  mirrors: z
    .array(
      z.strictObject({
        from: name.optional(),
        direction: z.enum(['in', 'out', 'both']).default('both'),
        to: name,
      }),
    )
    .default([]),
});

/** What people write. */
export type SwitchConfigInput = z.input<typeof switchSchema>;
/** What it means. */
export type SwitchConfig = z.output<typeof switchSchema>;
export type PortConfig = z.output<typeof portSchema>;
export type NetworkConfig = z.output<typeof networkSchema>;
export type GatewayConfig = z.output<typeof gatewaySchema>;
export type OfferConfig = z.output<typeof offerSchema>;
export type RuleConfig = z.output<typeof ruleSchema>;
export type MatchConfig = z.output<typeof matchSchema>;
export type MatchConfigInput = z.input<typeof captureMatchSchema>;
export type GroupRuleConfig = z.output<typeof groupRule>;
export type RateConfig = z.output<typeof rateSchema>;

/** Throws NetworkError CONFIG that names every bad key. */
export function parseSwitchConfig(document: unknown): SwitchConfig {
  const result = switchSchema.safeParse(document);
  if (result.success) return result.data;
  throw new NetworkError('CONFIG', explainIssues(switchSchema, result.error.issues));
}

/** Throws NetworkError CONFIG that names every bad key. */
export function parseCaptureMatch(document: unknown): MatchConfig {
  const result = captureSchema.safeParse({ match: document });
  if (result.success) return result.data.match;
  throw new NetworkError('CONFIG', explainIssues(captureSchema, result.error.issues));
}

/**
 * Reads one configuration after the other as `parseSwitchConfig` does. A rule with the words of one that the last configuration
 * had is that one, frozen: of a thousand rules only those that changed are read, and what is read leaves little garbage.
 */
export class SwitchConfigReader {
  #known: ReadonlyMap<string, RuleConfig> = new Map();

  read(document: unknown): SwitchConfig {
    // What is wrong is told by the schema of the whole.
    return this.#read(document) ?? parseSwitchConfig(document);
  }

  #read(document: unknown): SwitchConfig | undefined {
    if (typeof document !== 'object' || document === null) return undefined;
    const { rules, ...rest } = document as { readonly rules?: unknown };
    if (!Array.isArray(rules)) return undefined;
    const without = switchSchema.safeParse(rest);
    if (!without.success) return undefined;
    const known = new Map<string, RuleConfig>();
    const read: RuleConfig[] = [];
    for (const rule of rules) {
      const words = wordsOf(rule);
      const config = known.get(words) ?? this.#known.get(words) ?? readRule(rule);
      if (config === undefined) return undefined;
      known.set(words, config);
      read.push(config);
    }
    this.#known = known;
    return { ...without.data, rules: read };
  }
}

/** Nothing that a rule may contain is lost in it. */
function wordsOf(rule: unknown): string {
  try {
    return JSON.stringify(rule) ?? '';
  } catch {
    return ''; // it contains what no rule does
  }
}

function readRule(rule: unknown): RuleConfig | undefined {
  const { success, data } = ruleSchema.safeParse(rule);
  return success ? frozen(data) : undefined;
}

function frozen<Value>(value: Value): Value {
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return value;
  for (const part of Object.values(value)) frozen(part);
  return Object.freeze(value);
}
