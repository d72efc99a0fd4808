// Claim: switching between two veths through packet sockets reaches at least half of the kernel's bridge.
//
//   npm run bench:ports [-- --rounds 10 --seconds 1]
//
// Two hosts (network namespaces) with a veth each into a third, where either the kernel's bridge or our two-port forwarder
// joins them, on veths of their own, side by side. TCP by iperf3, interleaved; medians and ratios. As root.
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { buildNative, MEASURE } from '../test/support/native-build.js';
import { lineOf, NetworkLab } from '../test/support/network-lab.js';
import { type Measurement, table } from './report.js';

const { values } = parseArgs({
  options: { rounds: { type: 'string', default: '10' }, seconds: { type: 'string', default: '1' } },
});
const BRIDGE = 'kernel bridge';
const PORTS = 'packet sockets';
const TAPS = 'taps';
const SUBNETS: Record<string, string> = { [BRIDGE]: '10.90.1', [PORTS]: '10.90.2', [TAPS]: '10.90.3' };
const LOADS: Record<string, readonly string[]> = {
  'TCP, 1 stream': [],
  'TCP, 1 stream back': ['-R'],
  'TCP, 4 streams': ['-P', '4'],
};

await using lab = new NetworkLab('plane', 'a', 'b');
const hosts = ['a', 'b'] as const;
function wire(link: string): void {
  for (const host of hosts) {
    lab.ip('plane', `link add ${link}${host} type veth peer name ${link} netns ${lab.space(host)}`);
    lab.ip('plane', `link set ${link}${host} up`);
  }
}
function address(link: string, subnet: string): void {
  for (const [i, host] of hosts.entries()) {
    lab.ip(host, `link set ${link} up`);
    lab.ip(host, `addr add ${subnet}.${i + 1}/24 dev ${link}`);
  }
}

wire('kb');
lab.ip('plane', 'link add br0 type bridge');
lab.ip('plane', 'link set br0 up');
for (const host of hosts) lab.ip('plane', `link set kb${host} master br0`);
wire('ps');
const program = join(await buildNative(MEASURE, ['port_forwarder']), 'port_forwarder');
for (const ports of [
  ['link:psa', 'link:psb'],
  [`tap:tp@${lab.path('a')}`, `tap:tp@${lab.path('b')}`],
]) {
  await lineOf(lab.start('plane', program, '--runtime', lab.directory, ...ports), /ready/);
}
for (const [link, peer] of [
  ['kb', BRIDGE],
  ['ps', PORTS],
  ['tp', TAPS],
] as const) {
  address(link, SUBNETS[peer]!);
}
await lab.serveIperf('b');

const found = new Map<string, Measurement & { values: number[] }>();
for (let round = 0; round < Number(values.rounds); ++round) {
  for (const [figure, options] of Object.entries(LOADS)) {
    for (const [peer, subnet] of Object.entries(SUBNETS)) {
      const { end } = await lab.iperf('a', `${subnet}.2`, '-t', values.seconds, ...options);
      const key = `${figure} ${peer}`;
      if (!found.has(key)) found.set(key, { figure, unit: 'Gb/s', peer, values: [] });
      found.get(key)!.values.push(end.sum_received.bits_per_second / 1e9);
    }
  }
}
process.stdout.write(`medians of ${values.rounds} rounds; in brackets what packet sockets reach of it\n`);
process.stdout.write(`${table([...found.values()], Object.keys(SUBNETS), PORTS)}\n`);
