// What every fault test has: a volume below a directory of its own, small disks, and all of it gone at the end.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect } from 'vitest';
import { type CommandResult, MountUnderTest, penstock } from '../support/mount-under-test.js';
import { placeUnavailable } from '../support/place.js';
import { SmallDisk } from './small-disk.js';

export const unavailable = placeUnavailable() !== undefined || process.env.PENSTOCK_TEST_ROOT !== undefined;
export const isRoot = process.getuid?.() === 0;

export class Fixture {
  base = '';
  #mount: MountUnderTest | undefined;
  #disks: SmallDisk[] = [];

  /** To be called inside `describe`. */
  constructor() {
    beforeEach(() => {
      this.base = mkdtempSync(join(tmpdir(), 'penstock-faults-'));
    });
    afterEach(async () => {
      await this.#mount?.[Symbol.asyncDispose]();
      this.#mount = undefined;
      for (const disk of this.#disks.splice(0)) disk[Symbol.dispose]();
      rmSync(this.base, { recursive: true, force: true });
    });
  }

  async start(formatArguments: readonly string[] = []): Promise<MountUnderTest> {
    this.#mount = await MountUnderTest.start({ cacheSize: '64M', directory: this.base, formatArguments });
    return this.#mount;
  }

  smallDisk(name: string, mebibytes: number): SmallDisk {
    const disk = new SmallDisk(join(this.base, name), mebibytes);
    this.#disks.push(disk);
    return disk;
  }
}

/** The mount command of `volume` in the background form, as a user types it. */
export function mountCommand(volume: MountUnderTest): Promise<CommandResult> {
  return penstock(volume.mountArguments(), volume.environment, 30_000);
}

/** One line that says something about `about`, and the exit code. */
export function expectRefusal(outcome: CommandResult, code: number, about: RegExp): void {
  expect(outcome.stderr.trim()).toMatch(about);
  expect(outcome.stderr.trim().split('\n')).toHaveLength(1);
  expect(outcome.stderr).not.toMatch(/\n\s+at /);
  expect(outcome.code).toBe(code);
}
