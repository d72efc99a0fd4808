// What a planted fault is: a small edit of one source file that breaks a named invariant, and the narrowest test that
// must fail because of it. The text to replace must stand exactly once in the file, so that the list cannot go stale
// unnoticed.

/** One doctest case in the build with the address and undefined-behaviour sanitizers. */
export interface NativeTest {
  readonly binary: string;
  readonly testCase: string;
}

/** One vitest test, by the title that stands in `file`, or in `source` when `file` only calls a shared suite. */
export interface VitestTest {
  readonly file: string;
  readonly title: string;
  readonly source?: string;
  /** The name of a describe block around it, where one title runs several times. */
  readonly within?: string;
  /** The fault is in native code that this test reaches through the addon. */
  readonly needsAddon?: boolean;
}

export interface PlantedFault {
  readonly name: string;
  /** The invariant that the edit breaks. */
  readonly breaks: string;
  readonly file: string;
  /** Text to find and its replacement. */
  readonly edits: ReadonlyArray<readonly [find: string, replacement: string]>;
  readonly caughtBy: NativeTest | VitestTest;
}

export const isNative = (test: NativeTest | VitestTest): test is NativeTest => 'binary' in test;

/** Throws, naming the fault, unless each text stands exactly once. */
export function plant(fault: PlantedFault, source: string): string {
  let planted = source;
  for (const [find, replacement] of fault.edits) {
    const count = planted.split(find).length - 1;
    if (count !== 1) {
      throw new Error(
        `${fault.name}: in ${fault.file} this text stands ${count} times, it must stand once:\n${find}`,
      );
    }
    planted = planted.replace(find, () => replacement);
  }
  return planted;
}

export const labelOf = (test: NativeTest | VitestTest): string =>
  isNative(test) ? `${test.binary}: ${test.testCase}` : `${test.file}: ${test.title}`;
