// One life of a daemon: workers write and note what was acknowledged, the daemon is killed while unpublished data exists and
// an upload is under way, the volume is mounted again, and everything acknowledged must be there.
import { spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { command } from '../support/command.js';
import type { MountUnderTest, Pressure } from '../support/mount-under-test.js';
import { nativeTool } from '../support/native-tool.js';
import { ended, noted, type Place, pressed, withWatchdog } from '../support/workers.js';

/** Built when the file is loaded: a compiler has more time than a test. */
export const ACKLOAD = nativeTool('ackload');
const WORKERS = 3;
/** Lives whose data stays and is verified again after every later crash. */
const LIVES_KEPT = 3;

export interface Life {
  readonly pressure: Pressure;
  readonly acknowledged: number;
  /** From the start of the mount command to a mounted volume. */
  readonly recoveryMs: number;
}

export class Lives {
  #count = 0;
  readonly #kept: Place[][] = [];

  constructor(
    readonly mount: MountUnderTest,
    readonly seed: number,
  ) {}

  async live(): Promise<Life> {
    const number = this.#count;
    this.#count += 1;
    const places = Array.from({ length: WORKERS }, (_, worker) => ({
      directory: join(this.mount.path, `life-${number}-${worker}`),
      log: join(this.mount.base, `life-${number}-${worker}.log`),
    }));
    const workers = places.map(({ directory, log }, worker) => {
      const seed = this.seed + number * 1000 + worker;
      return spawn(ACKLOAD, ['run', directory, log, String(seed)], { stdio: ['ignore', 'ignore', 'pipe'] });
    });
    const ends = workers.map((worker) => ended(worker));
    let pressure: Pressure;
    try {
      await noted(places, workers);
      await sleep(randomInt(200, 1500));
      pressure = await pressed(this.mount, workers, 2);
      const early = workers.filter((worker) => worker.exitCode !== null);
      await this.mount.kill9();
      const codes = await withWatchdog(Promise.all(ends), 'a system call of a worker hangs after the kill');
      // 0: the file system went away under it. 3: an operation was refused before; `verify` below says which.
      if (codes.some((code) => code !== 0 && code !== 3))
        throw new Error(`workers ended with ${codes.join(', ')}`);
      // An error that looks like the daemon's end while it lives is a fault.
      if (early.some((worker) => worker.exitCode === 0)) throw new Error('a worker ended before the kill');
    } finally {
      for (const worker of workers) worker.kill('SIGKILL');
    }
    // Every second time the dead mount is first taken away, every other time the next mount finds it there.
    if (number % 2 === 0) await this.mount.umountDead();
    const started = performance.now();
    await this.mount.mount();
    const recoveryMs = performance.now() - started;

    this.#kept.push(places);
    if (this.#kept.length > LIVES_KEPT) {
      for (const { directory, log } of this.#kept.shift() ?? []) {
        for (const path of [directory, log]) rmSync(path, { recursive: true });
      }
    }
    const acknowledged = await this.verify(places);
    await this.mount.fsck();
    return { pressure, acknowledged, recoveryMs };
  }

  /** What was acknowledged in the lives that are kept is still there; answers how much it was in `places`. */
  async verify(places: readonly Place[] = []): Promise<number> {
    let acknowledged = 0;
    for (const { directory, log } of this.#kept.flat()) {
      const argv = ['verify', directory, log];
      const verdict = await command(ACKLOAD, argv, { timeoutMs: 60_000 }).catch((error: Error) => {
        throw new Error(`${error.message}\nlife ${this.#count - 1}; the daemons said:\n${this.mount.log}`);
      });
      if (places.some((place) => place.log === log)) acknowledged += Number(verdict.match(/^(\d+) ack/)?.[1]);
    }
    return acknowledged;
  }
}
