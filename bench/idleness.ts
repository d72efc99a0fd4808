// What waiting costs, and what it costs to be woken: our idle governor against always spinning, blocking at once, and a
// nap of 50 us, in one run, interleaved.
//
//   npm run bench:idle [-- --seconds 3 --rounds 5 --only '10 k/s,bursts']
//
// Prints medians, ratios and the targets, and draws processor time against p99 into docs/idleness.svg. Processor time is the
// receiving process's (getrusage) and, for comparison, what /proc/stat says of the whole machine: on a machine that does other
// things the latter says how much the figures are worth. Sources are datagram sockets; the source process is the same for all.
// Bursts come twice: as the machine is, and with the worker's processor kept from halting, which in a virtual machine takes
// the hypervisor's share out of a wake-up and of the milliseconds after it.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { packageRoot } from '../bindings/load.js';
import { idlenessPlot } from './idleness-plot.js';
import { median } from './report.js';

const MODES = ['spin', 'block', 'nap', 'adaptive'] as const;
type Mode = (typeof MODES)[number];

const PATTERNS = [
  { name: 'no traffic', pattern: 'none', rate: 0 },
  { name: '1 k/s', pattern: 'steady', rate: 1_000 },
  { name: '10 k/s', pattern: 'steady', rate: 10_000 },
  { name: '50 k/s', pattern: 'steady', rate: 50_000 },
  { name: 'bursts', pattern: 'bursts', rate: 1 },
  { name: 'bursts, no halts', pattern: 'bursts', rate: 1, awake: true },
] as const;

/** Share of a processor that the governor may spin in vain (IdleSettings::spin_share). */
const SPIN_BUDGET = 0.1;

interface Sample {
  readonly packets: number;
  readonly p50_us: number;
  readonly p99_us: number;
  /** Processors used by the receiver: 1 is one processor fully. */
  readonly cpu: number;
  readonly source_cpu: number;
  readonly spun: number;
  readonly wake_p50_us: number;
  readonly wake_p99_us: number;
  readonly told: string;
  /** Processors used by the whole machine meanwhile. */
  readonly machine: number;
}

export interface IdlenessRow {
  readonly traffic: string;
  readonly mode: Mode;
  readonly cpu: number;
  readonly p99_us: number;
}

function machineBusy_s(): number {
  const [, user, nice, system, idle, iowait, irq, softirq, steal] = readFileSync('/proc/stat', 'utf8')
    .split('\n')[0]!
    .split(/\s+/)
    .map(Number);
  void idle;
  void iowait;
  return (user! + nice! + system! + irq! + softirq! + steal!) / 100;
}

function build(directory: string): string {
  const program = join(directory, 'idleness');
  const sources = execFileSync('sh', ['-c', 'echo native/pipeline/*.cc'], {
    cwd: packageRoot(),
    encoding: 'utf8',
  });
  const files = [
    'bench/idleness.cc',
    ...sources.trim().split(' '),
    'native/base/parker.cc',
    'native/base/processor_wait.cc',
    'native/base/histogram.cc',
    'native/packet/packet_pool.cc',
  ];
  const flags = ['-std=c++20', '-O2', '-DNDEBUG', '-pthread', '-I.'];
  execFileSync(process.env.CXX ?? 'c++', [...flags, ...files, '-o', program], {
    cwd: packageRoot(),
    stdio: 'inherit',
  });
  return program;
}

function measure(program: string, mode: Mode, traffic: (typeof PATTERNS)[number], seconds: number): Sample {
  const before = machineBusy_s();
  const began = process.hrtime.bigint();
  const { pattern, rate } = traffic;
  const more = 'awake' in traffic ? ['awake'] : [];
  const line = execFileSync(program, [mode, pattern, String(rate), String(seconds), ...more], {
    encoding: 'utf8',
  });
  const elapsed_s = Number(process.hrtime.bigint() - began) / 1e9;
  return {
    ...(JSON.parse(line) as Omit<Sample, 'machine'>),
    machine: (machineBusy_s() - before) / elapsed_s,
  };
}

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '3' },
    rounds: { type: 'string', default: '5' },
    only: { type: 'string' },
    program: { type: 'string' },
    plot: { type: 'string', default: join(packageRoot(), 'docs/idleness.svg') },
  },
});
const directory = mkdtempSync(join(tmpdir(), 'penstock-idleness-'));
try {
  const program = values.program ?? build(directory);
  const rows: IdlenessRow[] = [];
  const verdicts: string[] = [];
  for (const traffic of PATTERNS) {
    const { name, pattern } = traffic;
    if (values.only && !values.only.split(',').includes(name)) continue;
    const samples = Object.fromEntries(MODES.map((mode) => [mode, [] as Sample[]])) as Record<Mode, Sample[]>;
    for (let round = 0; round < Number(values.rounds); round += 1) {
      for (const mode of MODES) samples[mode].push(measure(program, mode, traffic, Number(values.seconds)));
    }
    const of = (mode: Mode, figure: keyof Omit<Sample, 'told'>) =>
      median(samples[mode].map((sample) => sample[figure]));
    console.log(
      `\n${name}   (wake-up: median ${of('adaptive', 'wake_p50_us').toFixed(1)} us, p99 ${of('adaptive', 'wake_p99_us').toFixed(1)} us)`,
    );
    console.log('             p50 us    p99 us    CPU %   spun %   source CPU %   machine CPU %');
    for (const mode of MODES) {
      const cells = [
        of(mode, 'p50_us').toFixed(1).padStart(9),
        of(mode, 'p99_us').toFixed(1).padStart(10),
        (100 * of(mode, 'cpu')).toFixed(2).padStart(9),
        (100 * of(mode, 'spun')).toFixed(2).padStart(9),
        (100 * of(mode, 'source_cpu')).toFixed(1).padStart(15),
        (100 * of(mode, 'machine')).toFixed(1).padStart(16),
      ];
      console.log(`${mode.padEnd(10)}${cells.join('')}`);
      rows.push({ traffic: name, mode, cpu: of(mode, 'cpu'), p99_us: of(mode, 'p99_us') });
    }
    console.log(`  ${samples.adaptive.at(-1)!.told}`);
    const target = (holds: boolean, claim: string) =>
      verdicts.push(`${holds ? 'met   ' : 'MISSED'}  ${name}: ${claim}`);
    if (pattern === 'none') {
      target(of('adaptive', 'cpu') <= 0.002, `CPU ${(100 * of('adaptive', 'cpu')).toFixed(3)} % <= 0.2 %`);
      continue;
    }
    if (pattern === 'steady') {
      const allowed_us = of('spin', 'p99_us') + of('adaptive', 'wake_p99_us');
      target(
        of('adaptive', 'p99_us') <= allowed_us,
        `p99 ${of('adaptive', 'p99_us').toFixed(1)} us <= ${allowed_us.toFixed(1)} us (spinning + a wake-up, both p99)`,
      );
      const allowed = 1.1 * of('block', 'cpu') + SPIN_BUDGET;
      target(
        of('adaptive', 'cpu') <= allowed,
        `CPU ${(100 * of('adaptive', 'cpu')).toFixed(2)} % <= ${(100 * allowed).toFixed(2)} % (1.1 x block at once + the spin budget)`,
      );
      continue;
    }
    const latency = of('adaptive', 'p99_us') / of('spin', 'p99_us');
    const share = of('adaptive', 'cpu') / of('spin', 'cpu');
    target(latency <= 1.5, `p99 ${latency.toFixed(2)} x spinning's <= 1.5`);
    target(share <= 0.3, `CPU ${(100 * share).toFixed(1)} % of spinning's <= 30 %`);
  }
  console.log(`\n${verdicts.join('\n')}`);
  if (!values.only) {
    writeFileSync(values.plot, idlenessPlot(rows));
    console.log(`\ndrawn: ${values.plot}`);
  }
} finally {
  rmSync(directory, { recursive: true, force: true });
}
