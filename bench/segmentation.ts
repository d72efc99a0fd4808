// 64 KiB superframes into 45 segments with every checksum, against librte_gso followed by DPDK's checksums, on one core in
// memory; and how many small packets a second are parsed, hashed and encapsulated in VXLAN.
//
//   npm run bench-segmentation
//
// Claims: at least 40 Gb/s, at least twice librte_gso. Rounds of the two alternate; medians. libdpdk-dev is needed for the
// peer only (found with pkg-config); without it that column is missing and the run says so.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sourceFiles } from '../test/support/source-files.js';
import { output } from './output.js';
import { type Measurement, table } from './report.js';

/** Compiler and linker flags of DPDK; undefined when it is not installed. */
function dpdkFlags(): { readonly compile: string[]; readonly link: string[] } | undefined {
  if (spawnSync('pkg-config', ['--exists', 'libdpdk']).status !== 0) return undefined;
  const flags = (what: string) => output('pkg-config', [what, 'libdpdk']).trim().split(/\s+/);
  return {
    compile: ['-DPENSTOCK_DPDK', '-DALLOW_EXPERIMENTAL_API', ...flags('--cflags')],
    link: flags('--libs'),
  };
}

const directory = mkdtempSync(join(tmpdir(), 'penstock-bench-'));
try {
  const dpdk = dpdkFlags();
  if (dpdk === undefined) process.stdout.write('without librte_gso: libdpdk-dev is not installed\n');
  const program = join(directory, 'segmentation');
  const native = sourceFiles(['native/packet', 'native/offload'], /\.cc$/);
  const sources = ['bench/segmentation.cc', ...native, 'native/base/checksum.cc'];
  const compiler = process.env.CXX ?? 'c++';
  const flags = ['-std=c++20', '-O2', '-I.', ...(dpdk?.compile ?? [])];
  output(compiler, [...flags, ...sources, ...(dpdk?.link ?? []), '-o', program]);

  const found = new Map<string, Measurement & { values: number[] }>();
  for (const line of output(program, [])
    .trim()
    .split('\n')
    .filter((text) => text.startsWith('{'))) {
    const { figure, unit, peer, value } = JSON.parse(line);
    const key = `${figure}/${peer}`;
    if (!found.has(key)) found.set(key, { figure, unit, peer, values: [] });
    found.get(key)!.values.push(value);
  }
  const measurements = [...found.values()];
  const peers = [...new Set(measurements.map(({ peer }) => peer))];
  process.stdout.write(`${table(measurements, peers, 'penstock')}\n`);
} finally {
  rmSync(directory, { recursive: true, force: true });
}
