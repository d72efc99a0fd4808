// Where a suite runs: on a mount of ours, or, with PENSTOCK_TEST_ROOT=DIR, below any directory (to learn whether a failure
// is the file system's or the suite's own).
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { type MountOptions, MountUnderTest, mountUnavailable } from './mount-under-test.js';

export interface Place extends AsyncDisposable {
  readonly path: string;
  /** Undefined on a directory that is not ours. */
  readonly mount: MountUnderTest | undefined;
  /** From here on everything comes from the store: drain, delete the cache, mount again. */
  evict(): Promise<void>;
  /** fsck is clean. */
  check(): Promise<void>;
}

const otherRoot = process.env.PENSTOCK_TEST_ROOT;

/** The reason why suites on a mount are left out here, printed once; undefined when they run. */
export function placeUnavailable(): string | undefined {
  if (otherRoot) return undefined;
  const reason = mountUnavailable();
  if (reason) process.stderr.write(`left out, because ${reason}\n`);
  return reason;
}

export async function openPlace(options: MountOptions = {}): Promise<Place> {
  if (otherRoot) {
    const path = mkdtempSync(join(otherRoot, 'penstock-place-'));
    return {
      path,
      mount: undefined,
      evict: async () => {},
      check: async () => {},
      [Symbol.asyncDispose]: async () => rmSync(path, { recursive: true, force: true }),
    };
  }
  const mount = await MountUnderTest.start(options);
  return {
    path: mount.path,
    mount,
    evict: () => mount.evict(),
    check: () => mount.fsck(),
    [Symbol.asyncDispose]: () => mount[Symbol.asyncDispose](),
  };
}
