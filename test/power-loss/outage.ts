// One outage: workers write and note what was synced, the disk below cache and store loses power while unpublished data
// exists and an upload is under way, the daemon dies with it, the machine comes up again with what survived (now
// and then losing power once more while it does), and everything that was synced must be there, the rest a consistent past.
import { spawn, spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Random, seededRandom } from '../../src/telemetry/random.js';
import { command } from '../support/command.js';
import { isMounted, MountUnderTest, type Pressure } from '../support/mount-under-test.js';
import { nativeTool } from '../support/native-tool.js';
import { ended, noted, type Place, pressed, withWatchdog } from '../support/workers.js';
import { type CutReport, LossyDisk } from './lossy-disk.js';

/** Built when the file is loaded: a compiler has more time than a test. */
export const POWERLOAD = nativeTool('powerload');
const WORKERS = 2;
/** Outages whose files stay and are verified again after every later one. */
const OUTAGES_KEPT = 2;
/** The cut comes up to so many disk requests after the pressure was seen. */
const REQUESTS_MAX = 300;
/** Every fourth recovery is itself interrupted, so late and so many disk requests later at most. */
const RECOVERY_MS_MAX = 1500;
const RECOVERY_REQUESTS_MAX = 100;

export interface OutageReport {
  readonly pressure: Pressure;
  readonly cut: CutReport;
  readonly acknowledged: number;
  /** From the start of the mount command to a mounted volume. */
  readonly recoveryMs: number;
}

export class Outages implements AsyncDisposable {
  readonly #random: Random;
  readonly #kept: Place[][] = [];
  #count = 0;
  #boots = 0;

  private constructor(
    readonly disk: LossyDisk,
    readonly mount: MountUnderTest,
    readonly seed: number,
  ) {
    this.#random = seededRandom(seed);
  }

  static async start(seed: number, cacheSize: string): Promise<Outages> {
    const disk = await LossyDisk.start();
    try {
      return new Outages(disk, await MountUnderTest.start({ cacheSize, disk: disk.path }), seed);
    } catch (error) {
      disk[Symbol.dispose]();
      throw error;
    }
  }

  /** An error names the seed of the outage it happened in. */
  async outage(): Promise<OutageReport> {
    const number = this.#count;
    this.#count += 1;
    const seed = this.#random.next32();
    try {
      return await this.#outage(number, seed);
    } catch (error) {
      const place = `outage ${number + 1} of seed ${this.seed} (cut ${seed}, disk image ${this.disk.image})`;
      throw new Error(`${place}: ${(error as Error).message}\n${this.mount.log.slice(-4000)}`, {
        cause: error,
      });
    }
  }

  async #outage(number: number, seed: number): Promise<OutageReport> {
    const places = Array.from({ length: WORKERS }, (_, worker) => ({
      directory: join(this.mount.path, `outage-${number}-${worker}`),
      log: join(this.mount.base, `outage-${number}-${worker}.log`),
    }));
    const { pressure, cut } = await this.#loadAndCut(places, seed);
    await this.#powerOn();
    if (this.#random.below(4) === 0) await this.#interruptRecovery(seed + WORKERS);
    const started = performance.now();
    await this.mount.mount();
    const recoveryMs = performance.now() - started;

    this.#kept.push(places);
    // First what may go wrong in the background, before reading heals or hides it.
    await this.mount.fsck();
    const acknowledged = await this.verify(places);
    for (const { directory, log } of this.#kept.length > OUTAGES_KEPT ? (this.#kept.shift() ?? []) : [])
      for (const path of [directory, log]) rmSync(path, { recursive: true, force: true });
    return { pressure, cut, acknowledged, recoveryMs };
  }

  async #loadAndCut(places: readonly Place[], seed: number) {
    const workers = places.map(({ directory, log }, worker) =>
      spawn(POWERLOAD, ['run', directory, log, String(seed + worker)], {
        stdio: ['ignore', 'ignore', 'pipe'],
      }),
    );
    const ends = workers.map(ended);
    try {
      await noted(places, workers);
      await sleep(100 + this.#random.below(1500));
      const pressure = await pressed(this.mount, workers, 10);
      if (workers.some((worker) => worker.exitCode === 3)) {
        await sleep(100);
        const stats = await this.mount.stats();
        await this.verify(places).catch((error) => {
          throw new Error(`before the cut: ${(error as Error).message} ${JSON.stringify(stats)}`);
        });
      }
      const cut = await this.disk.cut(seed, this.#random.below(REQUESTS_MAX));
      await this.mount.kill9();
      this.#unmountDead();
      const codes = await withWatchdog(Promise.all(ends), 'a system call of a worker hangs after the cut');
      // 0: the file system went away under it. 3: an operation was refused before; `verify` says which.
      if (codes.some((code) => code !== 0 && code !== 3))
        throw new Error(`workers ended with ${codes.join(', ')}`);
      return { pressure, cut };
    } finally {
      for (const worker of workers) worker.kill('SIGKILL');
    }
  }

  async #powerOn(): Promise<void> {
    this.disk.clear();
    await this.disk.powerOn();
    this.#boots += 1;
    this.mount.environment.PENSTOCK_BOOT_ID = `boot-${this.#boots}`;
  }

  /** The power goes again before the machine is up, or just after. */
  async #interruptRecovery(seed: number): Promise<void> {
    const attempt = this.mount.mount().then(
      () => undefined,
      (error: unknown) => error,
    );
    await sleep(this.#random.below(RECOVERY_MS_MAX));
    await this.disk.cut(seed, this.#random.below(RECOVERY_REQUESTS_MAX));
    await this.mount.kill9();
    await attempt;
    this.#unmountDead();
    await this.#powerOn();
  }

  /** What was synced in the outages that are kept is there; answers how much was acknowledged in `places`. */
  async verify(places: readonly Place[] = []): Promise<number> {
    let acknowledged = 0;
    for (const place of new Set([...this.#kept.flat(), ...places])) {
      const argv = ['verify', place.directory, place.log];
      const verdict = await command(POWERLOAD, argv, { timeoutMs: 60_000 });
      if (places.includes(place)) acknowledged += Number(verdict.match(/^(\d+) acknowledged/)?.[1]);
    }
    return acknowledged;
  }

  /** Everything is uploaded, read back from the extent store and verified; every stored page matches its checksum. */
  async close(): Promise<void> {
    await this.mount.evict();
    await this.verify();
    await this.mount.fsck();
    await this.mount.command('scrub', this.mount.path);
    await this.mount.umount();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.mount[Symbol.asyncDispose]();
    } finally {
      this.disk[Symbol.dispose]();
    }
  }

  /** The daemon cannot be asked to: the disk that it runs from is gone. */
  #unmountDead(): void {
    const { path } = this.mount;
    for (let tries = 0; tries < 8 && isMounted(path); tries += 1) spawnSync('umount', ['-l', path]);
    if (isMounted(path)) throw new Error(`${path} is still mounted`);
  }
}
