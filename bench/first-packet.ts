// Claim: the first packet after idleness passes our switch, whose worker sleeps then, within 30 us of what the kernel's bridge
// takes for it.
//
//   npm run bench:first-packet [-- --rounds 5 --packets 20 --pause 250]
//
// Two guests on veths, as in the overlay benchmark; datagrams of 18 bytes, each after a pause of so many milliseconds, in which the
// machine has nothing else to do. What is measured is the way there: from the sender's clock before `send` to the receiver's
// after `recv` (one machine, one clock). Rounds are interleaved; medians of the rounds' medians. With flow offload a flow that
// is known passes inside the kernel; the switch without it is what a flow's first packet meets; it wakes
// one thread more than the bridge. As root.
import { availableParallelism, loadavg, release } from 'node:os';
import { parseArgs } from 'node:util';
import { nativeProgram } from '../test/support/native-tool.js';
import { lineOf, NetworkLab, networkUnavailable } from '../test/support/network-lab.js';
import { GUESTS, kernelBridge, ourSwitch, plainSpaces, type SetUp } from './overlay/set-ups.js';
import { median } from './report.js';

const PORT = '9000';
const LATER_MAX_US = 30;

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    packets: { type: 'string', default: '20' },
    pause: { type: 'string', default: '250' },
  },
});
if (networkUnavailable(['ping']) !== undefined) process.exit(1);
const datagrams = nativeProgram('datagrams', 'bench/tools');
await using lab = new NetworkLab(...['kb', 'sw', 'so'].flatMap(plainSpaces));
const setUps: readonly SetUp[] = [
  kernelBridge(lab, 'kernel bridge', 'kb'),
  await ourSwitch(lab, 'penstock', 'sw', 'off'),
  await ourSwitch(lab, 'penstock, offload', 'so', 'auto'),
];
for (const setUp of setUps) await lineOf(lab.start(setUp.server, datagrams, 'answer', PORT), /ready/);

interface Found {
  readonly name: string;
  readonly p50: number[];
  readonly p99: number[];
  lost: number;
}

async function measure(): Promise<Found[]> {
  const found = setUps.map(({ name }): Found => ({ name, p50: [], p99: [], lost: 0 }));
  for (let round = 0; round < Number(values.rounds); round += 1) {
    for (const [i, setUp] of setUps.entries()) {
      const words = ['first', GUESTS[1], PORT, values.packets, values.pause];
      const text = await lab.run(setUp.client, datagrams, ...words);
      const { p50_us, p99_us, lost } = JSON.parse(text) as { p50_us: number; p99_us: number; lost: number };
      found[i]!.p50.push(p50_us);
      found[i]!.p99.push(p99_us);
      found[i]!.lost += lost;
    }
  }
  return found;
}

function tell(found: readonly Found[]): void {
  process.stdout.write(`\n${' '.repeat(22)}    p50 us    p99 us   lost   after the bridge, us\n`);
  const bridge_us = median(found[0]!.p50);
  for (const [i, { name, p50, p99, lost }] of found.entries()) {
    const later_us = median(p50) - bridge_us;
    const cells = [
      median(p50).toFixed(1).padStart(10),
      median(p99).toFixed(1).padStart(10),
      String(lost).padStart(7),
      later_us.toFixed(1).padStart(23),
    ];
    const verdict = i === 0 ? '' : later_us <= LATER_MAX_US ? '   met' : `   MISSED (${LATER_MAX_US})`;
    process.stdout.write(`${name.padEnd(22)}${cells.join('')}${verdict}\n`);
  }
}

process.stdout.write(
  `Linux ${release()}, ${availableParallelism()} CPUs, load before ${loadavg()[0]!.toFixed(1)}\n`,
);
tell(await measure());
