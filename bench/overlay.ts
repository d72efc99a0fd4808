// Claim: an overlay of two of our daemons carries at least 0.8 of what the kernel's bridge and vxlan device carry when the
// underlay is a tap, 0.7 when it is UDP sockets, and five times what Open vSwitch's userspace carries; switching between two
// veths without a tunnel reaches half of the kernel's bridge. Each is measured with frames passing user space, and with decided
// flows offloaded to the kernel (docs/flow-offload.md).
//
//   npm run bench:overlay [-- --rounds 10 --seconds 2 --only kernel,tap,tap-offload --json out.json]
//
// Guests (network namespaces, MTU 1500) on veths; two hosts with a veth of MTU 1600 between them. Learning, a thousand rules,
// connection tracking and counters are on. iperf3's client is pinned to CPU 0 and its server to CPU 1 for everybody, nothing else
// is pinned. Rounds are interleaved; medians, and ratios to ours. Before them a capture on the underlay must show that every TCP
// packet of the guests went through VXLAN, and no stack may have seen a wrong checksum. As root.
import { readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism, loadavg, release } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { nativeProgram } from '../test/support/native-tool.js';
import { lineOf, lineOn, NetworkLab, networkUnavailable } from '../test/support/network-lab.js';
import { OPEN_VSWITCH } from '../test/support/open-vswitch.js';
import {
  GUESTS,
  kernelBridge,
  kernelOverlay,
  OPEN_VSWITCH_SETTINGS,
  type OpenVswitchSetting,
  openVswitchOverlay,
  ourOverlay,
  ourSwitch,
  overlaySpaces,
  plainSpaces,
  type SetUp,
  VNI,
} from './overlay/set-ups.js';
import { type Measurement, median, table } from './report.js';

const KERNEL = 'kernel bridge + vxlan';
const TAP = 'penstock, tap';
const UDP = 'penstock, udp';
const OVS = 'Open vSwitch userspace';
const BRIDGE = 'kernel bridge';
const SWITCH = 'penstock';
const TAP_OFFLOAD = 'penstock, tap, offload';
const UDP_OFFLOAD = 'penstock, udp, offload';
const SWITCH_OFFLOAD = 'penstock, offload';
const TARGETS = [
  { subject: TAP, peer: KERNEL, least: 0.8 },
  { subject: UDP, peer: KERNEL, least: 0.7 },
  { subject: TAP, peer: OVS, least: 5 },
  { subject: UDP, peer: OVS, least: 5 },
  { subject: SWITCH, peer: BRIDGE, least: 0.5 },
  { subject: TAP_OFFLOAD, peer: KERNEL, least: 0.8 },
  { subject: UDP_OFFLOAD, peer: KERNEL, least: 0.7 },
  { subject: SWITCH_OFFLOAD, peer: BRIDGE, least: 0.5 },
] as const;
const TCP = ['TCP, 1 stream', 'TCP, 4 streams'] as const;
const PORT = '9000';
const PINGS = '3000';
/** What stands before the inner TCP header, and some more. */
const SNAP_BYTES = '160';
const READY_MS = 10_000;

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '10' },
    seconds: { type: 'string', default: '2' },
    only: {
      type: 'string',
      default: 'kernel,tap,tap-offload,udp,udp-offload,ovs,bridge,switch,switch-offload',
    },
    json: { type: 'string' },
  },
});
const wanted = new Set(values.only.split(','));
const unavailable = networkUnavailable([
  'iperf3',
  'ping',
  'nstat',
  'ethtool',
  'tcpdump',
  'tshark',
  ...(wanted.has('ovs') ? OPEN_VSWITCH : []),
]);
if (unavailable !== undefined) process.exit(1);
const datagrams = nativeProgram('datagrams', 'bench/tools');

const settings = Object.keys(OPEN_VSWITCH_SETTINGS) as OpenVswitchSetting[];
await using lab = new NetworkLab(
  ...['kn', 'tp', 'to', 'up', 'uo', ...settings.map((_, i) => `o${i}`)].flatMap(overlaySpaces),
  ...['kb', 'sw', 'so'].flatMap(plainSpaces),
);

function busy_s(): number {
  const ticks = readFileSync('/proc/stat', 'utf8').split('\n')[0]!.split(/\s+/).slice(1).map(Number);
  const [user, nice, system, , , irq, softirq, steal] = ticks;
  return (user! + nice! + system! + irq! + softirq! + steal!) / 100;
}

const found = new Map<string, Measurement & { values: number[] }>();
function record(figure: string, unit: string, peer: string, value: number): void {
  const key = `${figure} ${peer}`;
  if (!found.has(key)) found.set(key, { figure, unit, peer, values: [] });
  found.get(key)!.values.push(value);
}

async function reaches(setUp: SetUp): Promise<boolean> {
  const until = Date.now() + READY_MS;
  while (Date.now() < until) {
    const answered = await lab.run(setUp.client, 'ping', '-c', '1', '-W', '1', GUESTS[1]).then(
      () => true,
      () => false,
    );
    if (answered) return true;
  }
  return false;
}

async function serve(setUp: SetUp): Promise<void> {
  await lab.serveIperf(setUp.server);
  await lineOf(lab.start(setUp.server, datagrams, 'answer', PORT), /ready/);
}

async function stream(setUp: SetUp, seconds: string, streams: string): Promise<number> {
  const options = ['-A', '0,1', '-t', seconds, '-P', streams];
  const { end } = await lab.iperf(setUp.client, GUESTS[1], ...options);
  return end.sum_received.bytes;
}

/** Fails unless all TCP on the underlay is inside VXLAN with our VNI; tells what was there. */
async function prove(setUp: SetUp & { readonly host: string }): Promise<string> {
  const file = join(lab.directory, `${setUp.client}.pcap`);
  const how = ['--immediate-mode', '-B', '65536', '-Z', 'root', '-i', 'wire', '-s', SNAP_BYTES, '-w', file];
  const capture = lab.start(setUp.host, 'tcpdump', ...how);
  await lineOn(capture.stderr!, /listening/);
  const { end } = await lab.iperf(setUp.client, GUESTS[1], '-n', '20M');
  const arrived = end.sum_received.bytes;
  await pause(300);
  const ended = new Promise((resolve) => capture.once('close', resolve));
  capture.kill('SIGINT');
  await ended;
  const frames = ['-T', 'fields', '-e', 'frame.len', '-e', 'vxlan.vni', '-e', 'frame.protocols'];
  const text = await lab.run(
    setUp.host,
    'tshark',
    '-r',
    file,
    '-o',
    'tcp.desegment_tcp_streams:FALSE',
    ...frames,
  );
  let inside = 0;
  let bytes = 0;
  let largest = 0;
  const others = new Map<string, number>();
  for (const line of text.trim().split('\n')) {
    const [length, vni, protocols] = line.split('\t');
    if (Number(vni) === VNI) {
      inside += 1;
      bytes += Number(length);
      largest = Math.max(largest, Number(length));
      continue;
    }
    if (/:tcp\b|:udp\b/.test(protocols!)) throw new Error(`${setUp.name}: not in VXLAN: ${line}`);
    others.set(protocols!, (others.get(protocols!) ?? 0) + 1);
  }
  if (bytes < arrived)
    throw new Error(`${setUp.name}: ${arrived} bytes arrived, ${bytes} were seen on the underlay`);
  for (const space of [setUp.client, setUp.server]) {
    const wrong = await lab.counter(space, 'TcpInCsumErrors');
    if (wrong !== 0) throw new Error(`${setUp.name}: ${wrong} wrong checksums`);
  }
  const rest = [...others].map(([protocols, count]) => `${count} ${protocols}`).join(', ') || 'nothing else';
  return `${setUp.name}: ${inside} frames of VXLAN ${VNI}, the largest ${largest} bytes; ${rest}`;
}

async function measure(setUp: SetUp): Promise<void> {
  const { name } = setUp;
  for (const [figure, streams] of [
    [TCP[0], '1'],
    [TCP[1], '4'],
  ] as const) {
    const before = busy_s();
    const bytes = await stream(setUp, values.seconds, streams);
    record(figure, 'Gb/s', name, (bytes * 8) / 1e9 / Number(values.seconds));
    record(`${figure}, processors`, 'CPU s/GB', name, (busy_s() - before) / (bytes / 1e9));
  }
  const flood = await lab.run(setUp.client, datagrams, 'flood', GUESTS[1], PORT, values.seconds);
  record('64-byte packets', 'k/s', name, (JSON.parse(flood) as { received: number }).received / 1000);
  await pause(200);
  const ping = await lab.run(setUp.client, datagrams, 'ping', GUESTS[1], PORT, PINGS);
  const { p50_us, p99_us } = JSON.parse(ping) as { p50_us: number; p99_us: number };
  record('round trip, p50', 'us', name, p50_us);
  record('round trip, p99', 'us', name, p99_us);
}

/** The setting of Open vSwitch that carries most; says what each of them did. */
async function bestOpenVswitch(): Promise<SetUp> {
  let best: { setUp: SetUp; bytes: number } | undefined;
  for (const [i, setting] of settings.entries()) {
    const candidate = await openVswitchOverlay(lab, OVS, `o${i}`, setting);
    if (!(await reaches(candidate))) {
      process.stdout.write(`${OVS}, ${setting}: carries nothing here\n`);
      await candidate.stop?.();
      continue;
    }
    await serve(candidate);
    const bytes = await stream(candidate, '1', '1');
    process.stdout.write(`${OVS}, ${setting}: ${((bytes * 8) / 1e9).toFixed(2)} Gb/s\n`);
    const better = best === undefined || bytes > best.bytes;
    await (better ? best?.setUp : candidate)?.stop?.();
    if (better) best = { setUp: candidate, bytes };
  }
  if (best === undefined) throw new Error(`${OVS} works in no setting`);
  return best.setUp;
}

function verdicts(): string[] {
  return TARGETS.flatMap(({ subject, peer, least }) =>
    TCP.flatMap((figure) => {
      const [ours, theirs] = [subject, peer].map((name) => found.get(`${figure} ${name}`));
      if (ours === undefined || theirs === undefined) return [];
      const ratio = median(ours.values) / median(theirs.values);
      const verdict = ratio >= least ? 'met   ' : 'MISSED';
      return `${verdict}  ${figure}: ${subject} ${ratio.toFixed(2)} of ${peer} (${least})`;
    }),
  );
}

const overlays: SetUp[] = [];
const plain: SetUp[] = [];
if (wanted.has('kernel')) overlays.push(kernelOverlay(lab, KERNEL, 'kn'));
if (wanted.has('tap')) overlays.push(await ourOverlay(lab, TAP, 'tp', 'tap', 'off'));
if (wanted.has('tap-offload')) overlays.push(await ourOverlay(lab, TAP_OFFLOAD, 'to', 'tap', 'auto'));
if (wanted.has('udp')) overlays.push(await ourOverlay(lab, UDP, 'up', 'udp', 'off'));
if (wanted.has('udp-offload')) overlays.push(await ourOverlay(lab, UDP_OFFLOAD, 'uo', 'udp', 'auto'));
if (wanted.has('bridge')) plain.push(kernelBridge(lab, BRIDGE, 'kb'));
if (wanted.has('switch')) plain.push(await ourSwitch(lab, SWITCH, 'sw', 'off'));
if (wanted.has('switch-offload')) plain.push(await ourSwitch(lab, SWITCH_OFFLOAD, 'so', 'auto'));
for (const setUp of [...overlays, ...plain]) {
  if (!(await reaches(setUp))) throw new Error(`${setUp.name}: no answer from the other guest`);
  await serve(setUp);
}
if (wanted.has('ovs')) overlays.push(await bestOpenVswitch());
process.stdout.write(
  `\nLinux ${release()}, ${availableParallelism()} CPUs, load before ${loadavg()[0]!.toFixed(1)}\n`,
);
for (const setUp of overlays)
  process.stdout.write(
    setUp.host === undefined
      ? `${setUp.name}: takes its frames before a capture sees them\n`
      : `${await prove({ ...setUp, host: setUp.host })}\n`,
  );
for (let round = 0; round < Number(values.rounds); round += 1)
  for (const setUp of [...overlays, ...plain]) await measure(setUp);

const all = [...found.values()];
const names = (setUps: readonly SetUp[]): string[] => setUps.map(({ name }) => name);
process.stdout.write(`\nmedians of ${values.rounds} rounds; in brackets what ours reaches of it (tap)\n`);
process.stdout.write(
  `${table(
    all.filter(({ peer }) => names(overlays).includes(peer)),
    names(overlays),
    TAP,
  )}\n\n`,
);
process.stdout.write(
  `${table(
    all.filter(({ peer }) => names(plain).includes(peer)),
    names(plain),
    SWITCH,
  )}\n\n`,
);
process.stdout.write(`${verdicts().join('\n')}\nload after ${loadavg()[0]!.toFixed(1)}\n`);
const medians = all.map((one) => ({ ...one, median: median(one.values) }));
if (values.json === undefined) process.stdout.write(`${JSON.stringify(medians)}\n`);
else writeFileSync(values.json, `${JSON.stringify(medians, null, 2)}\n`);
