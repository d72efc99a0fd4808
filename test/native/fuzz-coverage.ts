// npm run fuzz:coverage [-- --seconds 20 --least 90]: how many lines of the code that reads strangers' packets the fuzz
// targets reach. Each target first fuzzes for that long into its corpus (build/fuzz-corpus, which `npm run fuzz` fills too);
// the corpora are then replayed by a build that counts lines. Fails below --least per cent.
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join, relative } from 'node:path';
import { parseArgs } from 'node:util';
import { packageRoot } from '../../bindings/load.js';
import { buildNative, COVERAGE, clang, FUZZ, sanitizedLauncher } from '../support/native-build.js';

/** What the targets are there for; other code that they happen to run does not count. */
const COVERED = [
  /^native\/packet\/parse/,
  /^native\/offload\//,
  /^native\/switch\/rule_/,
  /^native\/port\/vnet_header/,
];

interface Lines {
  readonly count: number;
  readonly covered: number;
}

const { values } = parseArgs({
  options: { seconds: { type: 'string', default: '20' }, least: { type: 'string', default: '90' } },
});
const seconds = Number(values.seconds);
const least = Number(values.least);
const root = packageRoot();
const fuzzers = readdirSync(join(root, 'test/native/fuzz'))
  .filter((name) => /^(offload|packet|rule|tunnel|vnet)_.*_fuzz\.cc$/.test(name))
  .map((name) => name.slice(0, -'.cc'.length))
  .sort();

const corpusOf = (fuzzer: string): string => {
  const corpus = join(root, 'build/fuzz-corpus', fuzzer);
  mkdirSync(corpus, { recursive: true });
  return corpus;
};

/** The tool of the same version as the compiler, as Debian names it, else the plain name. */
function llvm(tool: string): string {
  const version = /-(\d+)$/.exec(clang())?.[1];
  // llvm-profdata knows no --version and exits with 1: it is there all the same.
  for (const name of version === undefined ? [tool] : [`${tool}-${version}`, tool])
    if (spawnSync(name, ['--version']).error === undefined) return name;
  throw new Error(
    `no ${tool} on PATH; on Debian: apt-get install llvm${version === undefined ? '' : `-${version}`}`,
  );
}

const merge = llvm('llvm-profdata');
const report = llvm('llvm-cov');

if (seconds > 0) {
  const built = await buildNative(FUZZ, fuzzers);
  for (const fuzzer of fuzzers) {
    process.stdout.write(`${fuzzer}: ${seconds} s\n`);
    const [program, ...rest] = [...sanitizedLauncher(), join(built, fuzzer)];
    execFileSync(program!, [...rest, `-max_total_time=${seconds}`, '-verbosity=0', corpusOf(fuzzer)], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
  }
}

const built = await buildNative(COVERAGE, fuzzers);
const profiles = join(built, 'profiles');
rmSync(profiles, { recursive: true, force: true });
mkdirSync(profiles);
for (const fuzzer of fuzzers) {
  execFileSync(join(built, fuzzer), ['-runs=0', '-verbosity=0', corpusOf(fuzzer)], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, LLVM_PROFILE_FILE: join(profiles, `${fuzzer}.profraw`) },
  });
}
const merged = join(profiles, 'all.profdata');
const raw = fuzzers.map((fuzzer) => join(profiles, `${fuzzer}.profraw`));
execFileSync(merge, ['merge', '-sparse', ...raw, '-o', merged]);
const objects = fuzzers.flatMap((fuzzer, index) => [
  ...(index === 0 ? [] : ['-object']),
  join(built, fuzzer),
]);
const exported = execFileSync(report, ['export', '-summary-only', `-instr-profile=${merged}`, ...objects], {
  encoding: 'utf8',
  maxBuffer: 64 << 20,
  stdio: ['ignore', 'pipe', 'pipe'],
});
const { data } = JSON.parse(exported) as {
  data: { files: { filename: string; summary: { lines: Lines } }[] }[];
};
const files = data
  .flatMap(({ files: list }) => list)
  .map(({ filename, summary }) => ({ name: relative(root, filename), lines: summary.lines }))
  .filter(({ name }) => COVERED.some((pattern) => pattern.test(name)));
const percent = ({ count, covered }: Lines): number => (count === 0 ? 100 : (100 * covered) / count);
const row = (name: string, lines: Lines): string =>
  `${name.padEnd(40)} ${String(lines.covered).padStart(5)} of ${String(lines.count).padStart(5)} lines ` +
  `${percent(lines).toFixed(1).padStart(6)} %\n`;
for (const { name, lines } of files) process.stdout.write(row(name, lines));
const total = files.reduce<Lines>(
  (sum, { lines }) => ({ count: sum.count + lines.count, covered: sum.covered + lines.covered }),
  { count: 0, covered: 0 },
);
process.stdout.write(row('all', total));
if (percent(total) < least) {
  process.stderr.write(
    `the fuzz targets reach ${percent(total).toFixed(1)} % of the lines, ${least} are asked\n`,
  );
  process.exitCode = 1;
}
