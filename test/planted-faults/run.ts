// `npm run planted-faults [-- --only NAME]`: plants each fault in a copy of the sources, builds what it needs, and expects
// the test that is named for it to fail; without the fault the same test must pass. Exit code 1 when a fault survives.
import { parseArgs } from 'node:util';
import { isNative, labelOf, type NativeTest, type PlantedFault, plant, type VitestTest } from './fault.js';
import { FAULTS } from './faults.js';
import { type Outcome, Scratch, tailOf } from './scratch.js';

type Verdict = 'caught' | 'SURVIVED' | 'BROKEN';

interface Row {
  readonly fault: PlantedFault;
  readonly verdict: Verdict;
  readonly seconds: number;
}

const { values } = parseArgs({
  options: {
    only: { type: 'string', multiple: true, default: [] },
    scratch: { type: 'string' },
  },
});

function chosen(): readonly PlantedFault[] {
  const unknown = values.only.filter((name) => !FAULTS.some((fault) => fault.name === name));
  if (unknown.length > 0) {
    const names = FAULTS.map(({ name }) => name).join(', ');
    process.stderr.write(`no planted fault "${unknown.join('", "')}"; there are: ${names}\n`);
    process.exit(2);
  }
  return values.only.length === 0 ? FAULTS : FAULTS.filter(({ name }) => values.only.includes(name));
}

const run = (scratch: Scratch, test: NativeTest | VitestTest): Promise<Outcome> =>
  isNative(test) ? scratch.runNative(test) : scratch.runVitest(test);

/** What the fault's file is compiled into, as far as its test runs it. */
async function build(scratch: Scratch, { caughtBy }: PlantedFault): Promise<void> {
  if (isNative(caughtBy)) await scratch.buildNative([caughtBy.binary]);
  else if (caughtBy.needsAddon) await scratch.buildAddon();
}

/** The tests that do not pass without any fault: what they say of one means nothing. */
async function failingBefore(scratch: Scratch, faults: readonly PlantedFault[]): Promise<Set<string>> {
  const binaries = faults.flatMap(({ caughtBy }) => (isNative(caughtBy) ? [caughtBy.binary] : []));
  if (binaries.length > 0) await scratch.buildNative([...new Set(binaries)]);
  if (faults.some(({ caughtBy }) => !isNative(caughtBy) && caughtBy.needsAddon)) await scratch.buildAddon();
  const tests = new Map(faults.map(({ caughtBy }) => [labelOf(caughtBy), caughtBy]));
  const failing = new Set<string>();
  for (const [label, test] of tests) {
    const { result, output } = await run(scratch, test);
    if (result === 'passed') continue;
    failing.add(label);
    process.stdout.write(
      `${label}\n  ${result === 'none' ? 'did not run' : 'fails'} without any fault:\n${tailOf(output)}\n`,
    );
  }
  process.stdout.write(`without faults ${tests.size - failing.size} of ${tests.size} tests pass\n`);
  return failing;
}

async function verdictOn(scratch: Scratch, fault: PlantedFault): Promise<Verdict> {
  const original = scratch.read(fault.file);
  try {
    scratch.write(fault.file, plant(fault, original));
    await build(scratch, fault);
    const { result, output } = await run(scratch, fault.caughtBy);
    if (result === 'failed') return 'caught';
    if (result === 'passed') return 'SURVIVED';
    process.stdout.write(`${tailOf(output)}\n`);
  } catch (error) {
    process.stdout.write(`${(error as Error).message}\n`);
  } finally {
    scratch.write(fault.file, original);
  }
  return 'BROKEN';
}

const faults = chosen();
const scratch = new Scratch(values.scratch);
const failing = await failingBefore(scratch, faults);
const rows: Row[] = [];
for (const fault of faults) {
  const startedMs = Date.now();
  const verdict = failing.has(labelOf(fault.caughtBy)) ? 'BROKEN' : await verdictOn(scratch, fault);
  const row = { fault, verdict, seconds: Math.round((Date.now() - startedMs) / 1000) };
  rows.push(row);
  process.stdout.write(
    `${verdict.padEnd(8)} ${fault.name.padEnd(36)} ${String(row.seconds).padStart(4)} s  ${labelOf(fault.caughtBy)}\n`,
  );
}
const caught = rows.filter(({ verdict }) => verdict === 'caught').length;
process.stdout.write(`${caught} of ${rows.length} planted faults were caught\n`);
process.exitCode = caught === rows.length ? 0 : 1;
