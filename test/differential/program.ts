// What random programs of both suites share: how a program is written down, where it is interrupted, and how much of the
// two file systems it may use.
import fc from 'fast-check';

/** What happens to the file system under test between two segments, with every handle closed. */
export type Between = 'nothing' | 'drain' | 'remount' | 'evict' | 'kill';

export interface Segment {
  readonly operations: readonly string[];
  readonly between: Between;
}

export type Program = readonly Segment[];

/** The shape of a suite: one arbitrary operation, given the features that both sides have. */
export interface Suite {
  readonly name: string;
  operation(features: ReadonlySet<string>): fc.Arbitrary<string>;
  /** Operations that put something there to work on, before the random ones. */
  readonly prologue: readonly string[];
  /** Optional features the suite would like; those absent on one side are reported as excluded. */
  readonly features: readonly string[];
}

export function program(
  suite: Suite,
  features: ReadonlySet<string>,
  betweens: readonly Between[],
  operationsMax: number,
): fc.Arbitrary<Program> {
  const segment = fc.record({
    operations: fc.array(suite.operation(features), { minLength: 1, maxLength: operationsMax, size: 'max' }),
    between: fc.constantFrom(...betweens),
  });
  return fc.array(segment, { minLength: 1, maxLength: 3, size: 'max' });
}

/** Joins words with arbitrary parts into one line. Shrinks each part on its own. */
export function line(verb: string, ...parts: readonly fc.Arbitrary<string | number>[]): fc.Arbitrary<string> {
  return fc.tuple(...parts).map((values) => [verb, ...values].join(' '));
}
