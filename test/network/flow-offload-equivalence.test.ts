// Whatever a configuration says and whatever stations send: with flows forwarded by the kernel the same frames arrive, at the
// same stations, as without. Random configurations and frames, each sent through two runs of the same switch.
import type { ChildProcess } from 'node:child_process';
import { setTimeout as pause } from 'node:timers/promises';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { SwitchConfigInput } from '../../src/network/config.js';
import { Switch } from '../../src/network/switch.js';
import { lineOf, NetworkLab, networkUnavailable } from '../support/network-lab.js';

const unavailable = networkUnavailable(['python3']);
const TIMEOUT_MS = 180_000;
const HOSTS = ['a', 'b', 'c'] as const;
type Host = (typeof HOSTS)[number];
const RUNS = 6;
const QUIET_MS = 150;

/** Sends the frames it is told to (hexadecimal lines), tells what its interface received since it was last asked ("take"). */
const STATION = `
import socket, sys, threading
PACKET_IGNORE_OUTGOING = 23
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
link.setsockopt(263, PACKET_IGNORE_OUTGOING, 1)
link.bind(('eth0', 0))
got, lock = [], threading.Lock()
def receive():
    while True:
        frame = link.recv(65536)
        with lock: got.append(frame.hex())
threading.Thread(target=receive, daemon=True).start()
print('ready', flush=True)
for line in sys.stdin:
    if line.strip() == 'take':
        with lock: told, got[:] = list(got), []
        print('took ' + ' '.join(told + ['end']), flush=True)
    else:
        link.send(bytes.fromhex(line.strip()))`;

class Station {
  private constructor(readonly child: ChildProcess) {}
  static async start(lab: NetworkLab, host: Host): Promise<Station> {
    const child = lab.start(host, 'python3', '-c', STATION);
    await lineOf(child, /^ready$/);
    return new Station(child);
  }
  send(frame: Buffer): void {
    this.child.stdin!.write(`${frame.toString('hex')}\n`);
  }
  async take(): Promise<string[]> {
    const answer = lineOf(this.child, /^took (.* )?end$/);
    this.child.stdin!.write('take\n');
    return (await answer).split(' ').slice(1, -1);
  }
}

type Stations = Readonly<Record<Host, Station>>;

const mac = (host: Host): string => `0200000000${(HOSTS.indexOf(host) + 10).toString(16).padStart(2, '0')}`;
const ip = (host: Host): string => `0a58000${HOSTS.indexOf(host) + 1}`;

interface Segment {
  readonly from: Host;
  readonly to: Host;
  readonly tcp: boolean;
  readonly ports: readonly [number, number];
  readonly flags?: number;
  readonly sequence?: number;
  readonly payload?: number;
  /** Tells frames apart that are otherwise the same. */
  readonly mark: number;
}

function checksum(bytes: Buffer): number {
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 2) sum += bytes.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

const IP = 14;
const TRANSPORT = 34;

/** Transport checksums are left zero, which for UDP means none; nobody here looks at TCP's. */
function frameOf({
  from,
  to,
  tcp,
  ports,
  flags = 0x10,
  sequence = 1000,
  payload = 64,
  mark,
}: Segment): Buffer {
  const header = tcp ? 20 : 8;
  const frame = Buffer.alloc(TRANSPORT + header + payload);
  frame.write(`${mac(to)}${mac(from)}0800`, 'hex');
  frame.write('45000000000040004011000000000000', IP, 'hex');
  frame.writeUInt16BE(20 + header + payload, IP + 2);
  frame[IP + 9] = tcp ? 6 : 17;
  frame.write(ip(from) + ip(to), IP + 12, 'hex');
  frame.writeUInt16BE(ports[0], TRANSPORT);
  frame.writeUInt16BE(ports[1], TRANSPORT + 2);
  if (tcp) {
    frame.writeUInt32BE(sequence, TRANSPORT + 4);
    frame.writeUInt32BE(1000, TRANSPORT + 8);
    frame[TRANSPORT + 12] = 0x50;
    frame[TRANSPORT + 13] = flags;
    frame.writeUInt16BE(0x2000, TRANSPORT + 14);
  } else frame.writeUInt16BE(header + payload, TRANSPORT + 4);
  frame.writeUInt32BE(mark, TRANSPORT + header);
  return summed(frame);
}

function summed(frame: Buffer): Buffer {
  frame.writeUInt16BE(0, IP + 10);
  frame.writeUInt16BE(checksum(frame.subarray(IP, TRANSPORT)), IP + 10);
  return frame;
}

const withByte = (at: number, value: number) => (frame: Buffer) => {
  frame[at] = value;
  return summed(frame);
};

/** What may be odd about a frame of a flow. */
const ODDITIES: Readonly<Record<string, (frame: Buffer) => Buffer>> = {
  none: (frame) => frame,
  'last hop': withByte(IP + 8, 1),
  'congestion marks': withByte(IP + 1, 3),
  'more fragments': withByte(IP + 6, 0x20),
  'may be fragmented': withByte(IP + 6, 0),
  'too long for UDP': (frame) => {
    frame.writeUInt16BE(0x7fff, TRANSPORT + 4);
    return frame;
  },
  'longer than it is': (frame) => {
    frame.writeUInt16BE(frame.length, IP + 2);
    return summed(frame);
  },
  'shorter than it is': (frame) => {
    frame.writeUInt16BE(frame.readUInt16BE(IP + 2) - 8, IP + 2);
    return summed(frame);
  },
  'no room for a header': (frame) => {
    frame.writeUInt16BE(27, IP + 2);
    return summed(frame);
  },
  'wrong header length': (frame) => {
    frame[TRANSPORT + 12] = 0xf0;
    return frame;
  },
  'another source address': (frame) => {
    frame[IP + 15]! ^= 0x40;
    return summed(frame);
  },
  'another source station': (frame) => {
    frame[11]! ^= 0x40;
    return frame;
  },
  'an unknown destination': (frame) => {
    frame[5]! ^= 0x40;
    return frame;
  },
  'to everybody': (frame) => {
    frame.fill(0xff, 0, 6);
    return frame;
  },
  'a tag': (frame) =>
    Buffer.concat([frame.subarray(0, 12), Buffer.from('81000005', 'hex'), frame.subarray(12)]),
};

const FLOWS = [
  { from: 'a', to: 'b', tcp: false, ports: [5000, 53] },
  { from: 'a', to: 'b', tcp: true, ports: [5001, 80] },
  { from: 'a', to: 'c', tcp: false, ports: [5002, 53] },
  { from: 'c', to: 'b', tcp: true, ports: [5003, 443] },
] as const;
type Flow = (typeof FLOWS)[number];

const turned = ({ from, to, tcp, ports }: Flow) =>
  ({ from: to, to: from, tcp, ports: [ports[1], ports[0]] }) as const;

/** A broadcast of no protocol that anybody knows (IEEE's local experimental EtherType). */
const greeting = (host: Host): Buffer =>
  Buffer.concat([Buffer.from(`ffffffffffff${mac(host)}88b5`, 'hex'), Buffer.alloc(46)]);

/** How a flow begins, one after the other. */
function opening(flow: Flow, mark: number): Segment[] {
  const back = turned(flow);
  return flow.tcp
    ? [
        { ...flow, flags: 2, mark },
        { ...back, flags: 0x12, mark },
        { ...flow, mark },
      ]
    : [
        { ...flow, mark },
        { ...back, mark },
      ];
}

/** Enough of both directions that the kernel may take them over. */
function talk(flow: Flow, mark: number): Segment[] {
  return Array.from({ length: 14 }, (_, i): Segment[] => [
    { ...flow, mark: mark + 1 + i },
    { ...turned(flow), mark: mark + 1 + i },
  ]).flat();
}

/** Sends frames by stations, and knows when the switch has seen to all of them: who is first is never left to chance. */
class Sender {
  readonly #expected: Record<Host, number>;
  constructor(
    private readonly plane: Switch,
    private readonly stations: Stations,
  ) {
    this.#expected = { a: this.#seen('a'), b: this.#seen('b'), c: this.#seen('c') };
  }
  send(host: Host, frame: Buffer): void {
    this.stations[host].send(frame);
    this.#expected[host] += 1;
  }
  async settled(): Promise<void> {
    const endMs = performance.now() + 30_000;
    while (HOSTS.some((host) => this.#seen(host) < this.#expected[host])) {
      if (performance.now() > endMs) throw new Error('the switch has not received what was sent');
      await pause(2);
    }
  }
  #seen(host: Host): number {
    return this.plane.port(host)!.received.packets;
  }
}

const RULES = [
  {
    name: 'no-dns',
    priority: 9,
    match: { protocol: 'udp', destinationPorts: 53, network: 'blue' },
    action: 'drop',
  },
  {
    name: 'https-to-a',
    priority: 8,
    match: { destinationPorts: 443, protocol: 'tcp' },
    action: { output: 'a' },
  },
  { name: 'marked', priority: 7, match: { source: '10.88.0.1' }, dscp: 10 },
  { name: 'mirrored', priority: 6, match: { destinationPorts: 80, protocol: 'tcp' }, mirror: 'c' },
  { name: 'metered', priority: 5, match: { protocol: 'tcp' }, meter: 'wide' },
  { name: 'no-resets', priority: 4, match: { protocol: 'tcp', tcpFlags: 'rst' }, action: 'drop' },
  { name: 'plain', priority: 3, match: { sourcePorts: 5000, protocol: 'udp' } },
] as const;

const ports = (guarded: boolean, group: string | undefined, still: boolean, isolated: boolean) => ({
  a: guarded
    ? { mac: '02:00:00:00:00:0a', addresses: ['10.88.0.1'], antiSpoof: true, isolated }
    : { isolated },
  b: group === undefined ? {} : { groups: [group], addresses: ['10.88.0.2'] },
  c: { isolated, ...(still ? ({ offload: 'off' } as const) : {}) },
});

const configuration = fc
  .record({
    tracking: fc.boolean(),
    floodUnknown: fc.boolean(),
    guarded: fc.boolean(),
    group: fc.constantFrom(undefined, 'web', 'names'),
    still: fc.boolean(),
    isolated: fc.boolean(),
    rules: fc.subarray([...RULES], { maxLength: 3 }),
    mirror: fc.boolean(),
    mtu: fc.constantFrom(1500, 1280),
  })
  .map(({ mtu, ...rest }) => ({ mtu, ...rest }));
type Configuration = typeof configuration extends fc.Arbitrary<infer Value> ? Value : never;

const probes = fc.array(
  fc.record({
    flow: fc.constantFrom(...FLOWS),
    answer: fc.boolean(),
    odd: fc.constantFrom(...Object.keys(ODDITIES)),
    flags: fc.constantFrom(0x10, 0x10, 0x18, 0x11, 0x14, 0x30, 0x02),
    payload: fc.constantFrom(32, 64, 700, 1400),
  }),
  { minLength: 4, maxLength: 16 },
);

function documentOf(lab: NetworkLab, offload: 'auto' | 'off', of: Configuration): SwitchConfigInput {
  const namespace = lab.path('plane');
  const special = ports(of.guarded, of.group, of.still, of.isolated);
  return {
    offload,
    networks: { blue: { tracking: of.tracking, floodUnknown: of.floodUnknown } },
    ports: Object.fromEntries(
      HOSTS.map((host) => [
        host,
        { interface: `v${host}`, namespace, network: 'blue', coalesce: false, ...special[host] },
      ]),
    ),
    groups: {
      web: { in: [{ protocol: 'tcp', ports: [80, 443] }], out: [{}] },
      names: { in: [{ protocol: 'udp', ports: 53, remote: '10.88.0.1' }] },
    },
    meters: { wide: { rate: '10Gbit' } },
    rules: of.rules.map((rule) => ({ ...rule }) as NonNullable<SwitchConfigInput['rules']>[number]),
    mirrors: of.mirror ? [{ from: 'b', to: 'c', direction: 'out' }] : [],
  };
}

/** What each station has received until nothing comes any more, in an order of its own. */
async function outcome(stations: Stations): Promise<Record<Host, string[]>> {
  const all: Record<Host, string[]> = { a: [], b: [], c: [] };
  for (let news = true; news; ) {
    news = false;
    await pause(QUIET_MS);
    for (const host of HOSTS) {
      const frames = await stations[host].take();
      news ||= frames.length > 0;
      all[host].push(...frames);
    }
  }
  for (const host of HOSTS) all[host].sort();
  return all;
}

describe.skipIf(unavailable !== undefined)('flow offload, compared', () => {
  test('the same frames arrive with it and without it', { timeout: TIMEOUT_MS }, async () => {
    await using lab = new NetworkLab('plane', ...HOSTS);
    // Nobody but us says anything.
    for (const space of ['plane', ...HOSTS])
      await lab.run(space, 'sysctl', '-qw', 'net.ipv6.conf.default.disable_ipv6=1');
    for (const host of HOSTS) {
      lab.ip('plane', `link add v${host} type veth peer name eth0 netns ${lab.space(host)}`);
      lab.ip(host, 'link set eth0 mtu 1500 up');
      lab.ip('plane', `link set v${host} up`);
    }
    const stations: Stations = {
      a: await Station.start(lab, 'a'),
      b: await Station.start(lab, 'b'),
      c: await Station.start(lab, 'c'),
    };
    let mark = 1;
    let forwarded = 0;
    const run = async (
      offload: 'auto' | 'off',
      of: Configuration,
      sent: typeof probes extends fc.Arbitrary<infer Value> ? Value : never,
      from: number,
    ): Promise<Array<Record<Host, string[]>>> => {
      lab.ip('plane', `link set vb mtu ${of.mtu}`);
      await using plane = await Switch.start({ workers: 1, runtimeDirectory: lab.directory });
      await plane.apply(documentOf(lab, offload, of));
      await outcome(stations);
      const sender = new Sender(plane, stations);
      // Everybody is known before the first flow, or who is heard first would decide about it.
      for (const host of HOSTS) sender.send(host, greeting(host));
      await sender.settled();
      for (const [number, flow] of FLOWS.entries()) {
        for (const segment of opening(flow, from + 100 * number)) {
          sender.send(segment.from, frameOf(segment));
          await sender.settled();
        }
        for (const segment of talk(flow, from + 100 * number)) {
          sender.send(segment.from, frameOf(segment));
          await pause(1);
        }
      }
      await sender.settled();
      const talked = await outcome(stations);
      for (const [number, probe] of sent.entries()) {
        const way = probe.answer ? turned(probe.flow) : probe.flow;
        const { flags } = probe;
        // A longer one the narrow link itself would refuse.
        const payload = way.from === 'b' ? Math.min(probe.payload, 700) : probe.payload;
        const frame = frameOf({ ...way, flags, payload, sequence: 2000, mark: from + 500 + number });
        sender.send(way.from, ODDITIES[probe.odd]!(frame));
        await sender.settled();
      }
      const probed = await outcome(stations);
      if (offload === 'off') expect(plane.counters().offloadTaken).toBe(0);
      forwarded += plane.counters().offloadedPackets!;
      return [talked, probed];
    };
    await fc.assert(
      fc.asyncProperty(configuration, probes, async (of, sent) => {
        const from = mark;
        mark += 1000;
        const without = await run('off', of, sent, from);
        expect(await run('auto', of, sent, from)).toEqual(without);
      }),
      { numRuns: RUNS, interruptAfterTimeLimit: TIMEOUT_MS - 60_000, endOnFailure: true },
    );
    // Else nothing was compared.
    expect(forwarded).toBeGreaterThan(0);
  });
});
