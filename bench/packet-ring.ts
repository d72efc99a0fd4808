// Claim: a script that reads the five-tuple of every packet and answers it keeps up with 2 million packets a second.
//
//   npm run bench:ring [-- --rounds 10 --packets 2000000]
//
// A native worker transmits 64-byte packets of 1 024 flows into a ring port as fast as verdicts come back; the handler
// looks the five-tuple up in a table. Compared in the same rounds with a handler that reads nothing. On a machine that is
// busy otherwise the wall clock says little, so that the rate for each second of the script's thread is printed as well.
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { PacketRing, type RingPacket, Verdict } from '../bindings/ring.js';
import { median } from './report.js';

const { values } = parseArgs({
  options: { rounds: { type: 'string', default: '10' }, packets: { type: 'string', default: '2000000' } },
});
const rounds = Number(values.rounds);
const packets = Number(values.packets);
const TARGET = 2_000_000;

const blocked = new Set<number>([0x0a000007, 0x0a000011]);

const contenders: Record<string, (packet: RingPacket) => Verdict> = {
  'five-tuple and verdict': (packet) => {
    const tuple = packet.sourcePort ^ packet.destinationPort ^ packet.destinationIpv4 ^ packet.protocol;
    return blocked.has(packet.sourceIpv4) && tuple !== 0 ? Verdict.drop : Verdict.accept;
  },
  'verdict only': () => Verdict.accept,
};

/** Nanoseconds that the main thread has run. */
function scriptTime(): number {
  return Number(readFileSync(`/proc/self/task/${process.pid}/schedstat`, 'utf8').split(' ')[0]);
}

interface Rate {
  readonly wall: number;
  readonly script: number;
}

async function measure(handler: (packet: RingPacket) => Verdict): Promise<Rate> {
  const before = scriptTime();
  const ring = new PacketRing(handler, { snap: 64 });
  ring.port.exercise(packets, 1024, 64);
  while (!ring.port.exercised().done) await new Promise((resolve) => setTimeout(resolve, 5));
  const { seconds } = ring.port.exercised();
  const script = packets / ((scriptTime() - before) / 1e9);
  ring.close();
  return { wall: packets / seconds, script };
}

const rates = new Map(Object.keys(contenders).map((name) => [name, [] as Rate[]]));
for (let round = 0; round < rounds; ++round) {
  for (const [name, handler] of Object.entries(contenders)) rates.get(name)!.push(await measure(handler));
}
const millions = (rate: number) => (rate / 1e6).toFixed(2);
for (const [name, found] of rates) {
  const wall = found.map((rate) => rate.wall);
  process.stdout.write(
    `${name.padEnd(24)} median ${millions(median(wall))} M packets/s (${millions(Math.min(...wall))} to ` +
      `${millions(Math.max(...wall))}), ${millions(median(found.map((rate) => rate.script)))} M per second of its thread\n`,
  );
}
const subject = rates.get('five-tuple and verdict')!;
process.stdout.write(
  `ratio to the target of ${millions(TARGET)} M: ${(median(subject.map((rate) => rate.wall)) / TARGET).toFixed(2)}\n`,
);
