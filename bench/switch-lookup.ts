// What a packet costs in memory, on one core: parsed, looked up, encapsulated in VXLAN, with 64 k flows, 4 096 buffers and all
// counters; and rules looked up among 10, 1 000 and 100 000. Every pass's output is compared with a reference.
//
//   npm run bench:lookup -- [--rounds 10] [--json out.json]
//
// Aim: 8 million packets a second. Medians of rounds that alternate, in processor time of the one thread; a loaded machine costs
// caches all the same, so its load is part of what is printed.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { sourceFiles } from '../test/support/source-files.js';
import { output } from './output.js';
import { type Measurement, median, table } from './report.js';

const PARTS = ['base', 'bpf', 'packet', 'offload', 'pipeline', 'port', 'switch'];
const NATIVE = PARTS.map((part) => `native/${part}`);

const { values: options } = parseArgs({
  options: { rounds: { type: 'string', default: '10' }, json: { type: 'string' } },
});

const directory = mkdtempSync(join(tmpdir(), 'penstock-bench-'));
try {
  const program = join(directory, 'switch-lookup');
  const sources = ['bench/switch-lookup.cc', ...sourceFiles(NATIVE, /\.cc$/)];
  output(process.env.CXX ?? 'c++', ['-std=c++20', '-O2', '-I.', '-pthread', ...sources, '-o', program]);
  const before = loadavg()[0]!;
  const found = new Map<string, Measurement & { values: number[] }>();
  for (const line of output(program, [options.rounds]).trim().split('\n')) {
    const { figure, unit, peer, value } = JSON.parse(line);
    if (!found.has(figure)) found.set(figure, { figure, unit, peer, values: [] });
    found.get(figure)!.values.push(value);
  }
  const measurements = [...found.values()];
  const machine = `${cpus()[0]!.model}, ${cpus().length} processors, load before the run ${before.toFixed(1)}`;
  process.stdout.write(`${table(measurements, ['penstock'], 'penstock')}\n${machine}\n`);
  if (options.json !== undefined)
    writeFileSync(
      options.json,
      `${JSON.stringify(
        {
          machine,
          figures: measurements.map((one) => ({ ...one, median: median(one.values) })),
        },
        null,
        2,
      )}\n`,
    );
} finally {
  rmSync(directory, { recursive: true, force: true });
}
