// Runs random programs on two file systems and compares every answer and the final trees. On a difference fast-check
// shrinks the program; the message holds the seed and the shrunk program with both answers.
import { randomInt } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { SystemCallServer } from '../support/system-call-server.js';
import { type Between, type Program, program, type Suite } from './program.js';

export interface Subject {
  readonly root: string;
  /** Interruptions the subject can take besides 'nothing'. No process has a file or directory of it open meanwhile. */
  readonly betweens: readonly Between[];
  interrupt(between: Between): Promise<void>;
  /** A fault to commit, in tests of the tests. */
  readonly plant?: string;
}

export interface Options {
  readonly suite: Suite;
  readonly reference: string;
  readonly subject: Subject;
  readonly seconds: number;
  readonly seed?: number;
  /** Ends after so many programs, rounded up to whole batches: with a seed, a run that is the same everywhere. */
  readonly programsMax?: number;
  /** Most operations of one segment; a program has up to three. */
  readonly operationsMax?: number;
}

export interface Outcome {
  readonly programs: number;
  readonly operations: number;
  readonly seed: number;
  /** Features one side lacks: not compared. */
  readonly excluded: readonly string[];
}

const BATCH = 10;
const SHRINK_MS_MAX = 60_000;
let runs = 0;

class Difference extends Error {}

export async function compare(options: Options): Promise<Outcome> {
  const { suite, subject } = options;
  const seed = options.seed ?? randomInt(2 ** 31);
  let programs = 0;
  let operations = 0;
  using reference = new SystemCallServer(options.reference);
  let tested = new SystemCallServer(subject.root, subject.plant);
  const common = intersection(await reference.features(), await tested.features());
  const excluded = suite.features.filter((feature) => !common.has(feature));

  const restart = () => {
    tested[Symbol.dispose]();
    tested = new SystemCallServer(subject.root, subject.plant);
  };

  const runOnce = async (candidate: Program): Promise<void> => {
    programs += 1;
    runs += 1;
    const name = `run-${process.pid}-${runs}`;
    const transcript: string[] = [];
    const both = async (lines: readonly string[]) => {
      const [expected, actual] = await Promise.all([reference.run(lines), tested.run(lines)]);
      operations += lines.length;
      for (const [index, text] of lines.entries()) {
        transcript.push(`${text}  ->  ${expected[index]}`);
        if (expected[index] === actual[index]) continue;
        throw new Difference(report(suite, transcript, expected[index] ?? '', actual[index] ?? ''));
      }
    };
    try {
      await both([`begin ${name}`, ...suite.prologue]);
      for (const [index, segment] of candidate.entries()) {
        await both([...segment.operations, 'closeall', 'tree']);
        if (segment.between === 'nothing') continue;
        await tested.run(['leave']);
        await reference.run(['leave']);
        restart();
        await subject.interrupt(segment.between);
        transcript.push(`-- ${segment.between} after segment ${index}`);
        await both([`enter ${name}`, 'tree']);
      }
      await both([`end ${name}`]);
    } catch (error) {
      // The next (shrunk) program starts from nothing, on both sides, even after a hang.
      restart();
      await reference.run([`end ${name}`]);
      await tested.run([`end ${name}`]).catch(() => {});
      restart();
      await rm(join(subject.root, name), { recursive: true, force: true }).catch(() => {});
      if (error instanceof Difference) throw error;
      throw new Difference(`${(error as Error).message}\n${transcript.join('\n')}`);
    }
  };

  const arbitrary = program(suite, common, ['nothing', ...subject.betweens], options.operationsMax ?? 60);
  let shrinkUntil: number | undefined;
  const property = fc.asyncProperty(arbitrary, async (candidate) => {
    // Out of time to shrink: what is left of the search counts as right, and the smallest failure so far is reported.
    if (shrinkUntil !== undefined && performance.now() > shrinkUntil) return;
    try {
      await runOnce(candidate);
    } catch (error) {
      shrinkUntil ??= performance.now() + SHRINK_MS_MAX;
      throw error;
    }
  });
  const end = performance.now() + options.seconds * 1000;
  try {
    // In batches, so that no program is cut off in its middle.
    const last = seed + Math.ceil((options.programsMax ?? Number.POSITIVE_INFINITY) / BATCH);
    for (let batch = seed; performance.now() < end && batch < last; batch += 1) {
      const details = await fc.check(property, { seed: batch, numRuns: BATCH });
      if (!details.failed) continue;
      const message = details.errorInstance instanceof Error ? details.errorInstance.message : 'failed';
      throw new Error(`seed ${batch}, shrunk ${details.numShrinks} times\n${message}`);
    }
  } finally {
    tested[Symbol.dispose]();
  }
  return { programs, operations, seed, excluded };
}

function report(suite: Suite, transcript: readonly string[], expected: string, actual: string): string {
  const shown = transcript.map((text) => (text.length > 300 ? `${text.slice(0, 300)}...` : text));
  return [
    `${suite.name}: the two file systems differ; the program, with the reference's answers:`,
    ...shown.map((text) => `  ${text}`),
    ...firstDifference(expected, actual),
  ].join('\n');
}

/** Trees are long: only the pieces that differ are shown. */
function firstDifference(expected: string, actual: string): string[] {
  const left = expected.split(';');
  const right = actual.split(';');
  if (left.length < 3) return [`expected ${expected}`, `actual   ${actual}`];
  return [
    ...left.filter((piece) => !right.includes(piece)).map((piece) => `expected ${piece}`),
    ...right.filter((piece) => !left.includes(piece)).map((piece) => `actual   ${piece}`),
  ].slice(0, 12);
}

function intersection(left: ReadonlySet<string>, right: ReadonlySet<string>): Set<string> {
  return new Set([...left].filter((feature) => right.has(feature)));
}
