// Configuration after configuration, each with a tenth of a thousand rules exchanged, while datagrams pass at a steady rate: what
// is lost, what the counters lose, and what memory is kept. Two namespaces, veths, a switch in this process.
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { mallocBytesInUse } from '../../bindings/malloc.js';
import type { SwitchConfigInput } from '../../src/network/config.js';
import { Switch } from '../../src/network/switch.js';
import { lineOf, NetworkLab } from '../support/network-lab.js';

const RULES = 1000;
const CHANGED = 100;
const PORT = 5299;

/** Sends numbered datagrams until its input ends, then says how many. */
const SEND = `
import select, socket, struct, sys, time
rate, out = int(sys.argv[2]), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
out.connect((sys.argv[1], ${PORT}))
sent, start = 0, time.monotonic()
while not select.select([sys.stdin], [], [], 0)[0]:
  due = int((time.monotonic() - start) * rate)
  # What the machine did not let us send in time is not made up for in one burst.
  for _ in range(min(due - sent, 64)):
    out.send(struct.pack('!Q', sent) + bytes(52))
    sent += 1
  if due - sent > rate // 10: start += (due - sent) / rate
  time.sleep(0.0005)
print('sent', sent, time.monotonic() - start, flush=True)`;

/** Counts different numbers until it has as many as it is told at the end, or half a minute is over, and what comes beyond. */
const RECEIVE = `
import select, socket, struct, sys, time
inward = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
inward.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
inward.bind(('', ${PORT}))
print('listening', flush=True)
seen, total, due, end = set(), 0, None, 0
def take(*others, seconds):
  global total
  ready = select.select([inward, *others], [], [], seconds)[0]
  if inward in ready:
    seen.add(struct.unpack_from('!Q', inward.recv(256))[0])
    total += 1
  return ready
while due is None:
  if sys.stdin in take(sys.stdin, seconds=None): due, end = int(sys.stdin.readline()), time.monotonic() + 30
while len(seen) < due and time.monotonic() < end: take(seconds=1)
while take(seconds=0.5): pass
print('received', len(seen), total, flush=True)`;

export interface SwapsReport {
  readonly swaps: number;
  readonly seconds: number;
  readonly sent: number;
  /** Different datagrams. */
  readonly received: number;
  readonly duplicates: number;
  readonly packetsPerSecond: number;
  /** By the rule that all of them match, over all configurations. */
  readonly counted: number;
  readonly drops: Readonly<Record<string, number>>;
  readonly lostInKernel: number;
  /** After the swaps that were asked for, and at the end. */
  readonly memory: readonly Memory[];
  /** After any swap beyond the first look. */
  readonly residentBytesMax: number;
}

/** At rest. */
export interface Memory {
  readonly swaps: number;
  readonly residentBytes: number;
  /** By native code and by JavaScript. */
  readonly mallocBytes: number;
  readonly heapBytes: number;
}

/** The document of one swap: the rules of slice `swap` are of that swap, the others as they were. */
export function documents(namespace: string): (swap: number) => SwitchConfigInput {
  const rule = (index: number, swap: number) => ({
    name: `rule-${index}-${swap}`,
    priority: 10 + (index % 7),
    match: {
      protocol: 'tcp' as const,
      destination: `10.${index % 250}.${swap % 250}.0/24`,
      destinationPorts: [1 + ((index * 61 + swap) % 60_000)],
    },
    action: 'drop' as const,
  });
  const rules = Array.from({ length: RULES - 1 }, (_, index) => rule(index, 0));
  return (swap) => {
    for (let i = 0; i < CHANGED && swap > 0; ++i) {
      const index = ((swap - 1) * CHANGED + i) % rules.length;
      rules[index] = rule(index, swap);
    }
    const meter = `meter-${swap}`;
    return {
      networks: { blue: {} },
      ports: {
        a: { interface: 'va', namespace, network: 'blue' },
        b: { interface: 'vb', namespace, network: 'blue' },
      },
      meters: { [meter]: { rate: '10Gbit' } },
      rules: [
        { name: 'traffic', priority: 1, match: { protocol: 'udp', destinationPorts: [PORT] }, meter },
        ...rules,
      ],
    };
  };
}

export async function swapUnderLoad(options: {
  readonly swaps: number;
  readonly packetsPerSecond: number;
  /** After how many swaps memory is looked at, beside the end. */
  readonly lookAfter: readonly number[];
  /** Brings memory to rest before it is looked at. */
  readonly rest: () => Promise<void>;
  readonly onSwap?: (done: number) => void;
}): Promise<SwapsReport> {
  await using lab = new NetworkLab('plane', 'a', 'b');
  for (const [i, host] of ['a', 'b'].entries()) {
    lab.ip('plane', `link add v${host} type veth peer name eth0 netns ${lab.space(host)}`);
    lab.ip('plane', `link set v${host} up`);
    lab.ip(host, 'link set eth0 up');
    lab.ip(host, `addr add 10.88.0.${i + 1}/24 dev eth0`);
  }
  await using plane = await Switch.start({ runtimeDirectory: lab.directory });
  const document = documents(lab.path('plane'));
  await plane.apply(document(0));
  // Neighbours are known before the first datagram.
  await lab.run('a', 'ping', '-c', '1', '-W', '5', '10.88.0.2');
  // What the hosts' kernels said by themselves while the second port was not there yet.
  const before = dropsOf(plane);

  const receiver = lab.start('b', 'python3', '-c', RECEIVE);
  await lineOf(receiver, /^listening$/);
  const sender = lab.start('a', 'python3', '-c', SEND, '10.88.0.2', String(options.packetsPerSecond));
  const start = performance.now();
  const memory: Memory[] = [];
  const look = async (swaps: number): Promise<void> => {
    await options.rest();
    const { rss, heapUsed } = process.memoryUsage();
    memory.push({ swaps, residentBytes: rss, mallocBytes: mallocBytesInUse(), heapBytes: heapUsed });
  };
  let residentBytesMax = 0;
  for (let swap = 1; swap <= options.swaps; ++swap) {
    await plane.apply(document(swap));
    if (memory.length > 0) residentBytesMax = Math.max(residentBytesMax, process.memoryUsage.rss());
    if (options.lookAfter.includes(swap)) await look(swap);
    options.onSwap?.(swap);
  }
  const [sent, sending] = await lastWords(sender, /^sent (\d+) ([\d.]+)$/);
  const [received, total] = await lastWords(receiver, /^received (\d+) (\d+)$/, `${sent}\n`);
  await look(options.swaps);
  const stats = plane.stats();
  const drops: Record<string, number> = {};
  for (const [reason, count] of Object.entries(dropsOf(plane)))
    if (count > (before[reason] ?? 0)) drops[reason] = count - (before[reason] ?? 0);
  return {
    swaps: options.swaps,
    seconds: (performance.now() - start) / 1000,
    sent: sent!,
    received: received!,
    duplicates: total! - received!,
    packetsPerSecond: sent! / sending!,
    counted: stats.rules.find(({ name }) => name === 'traffic')?.packets ?? 0,
    drops,
    lostInKernel: Object.values(stats.ports).reduce((sum, { lost }) => sum + lost, 0),
    memory,
    residentBytesMax,
  };
}

/** Of all ports, by reason. */
function dropsOf(plane: Switch): Record<string, number> {
  const drops: Record<string, number> = {};
  for (const port of Object.values(plane.stats().ports))
    for (const [reason, count] of Object.entries(port.drops)) drops[reason] = (drops[reason] ?? 0) + count;
  return drops;
}

/** Ends the child's input, `told` before that, and answers the numbers of what it says then. */
async function lastWords(child: ChildProcess, pattern: RegExp, told = ''): Promise<number[]> {
  const said = lineOf(child, pattern);
  const ended = once(child, 'exit');
  child.stdin!.end(told);
  const line = await said;
  await ended;
  return pattern.exec(line)!.slice(1).map(Number);
}

/**
 * Collects garbage until nothing more comes back: threads of V8 give pages back after a collection has returned, and one that
 * ends a marking begun before moves hardly anything together.
 */
export async function collectGarbage(): Promise<void> {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  let resident = process.memoryUsage.rss();
  for (let calm = 0; calm < 2; ) {
    collect();
    await setTimeout(200);
    const now = process.memoryUsage.rss();
    calm = resident - now < 2 ** 20 ? calm + 1 : 0;
    resident = now;
  }
}
