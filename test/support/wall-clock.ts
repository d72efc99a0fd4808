// A wall clock of its own for a process, which a test turns forth and back: Debian's libfaketime, loaded before everything else. It
// answers for clock_gettime, gettimeofday and time of the C library, so native code, RocksDB and OpenSSL see the same hour as
// JavaScript. The monotonic clock is left alone, as by a machine whose date is set; so is the clock of the machine.
import { existsSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const ROOTS = ['/usr/lib', '/usr/lib64', '/usr/local/lib'];
const LIBRARY = 'faketime/libfaketimeMT.so.1';

/** Where libfaketime is; throws when it is not. */
function libfaketime(): string {
  const places = ROOTS.filter((root) => existsSync(root)).flatMap((root) => [
    root,
    ...readdirSync(root)
      .filter((name) => name.includes('linux-gnu'))
      .map((name) => join(root, name)),
  ]);
  const found = places.map((place) => join(place, LIBRARY)).find((path) => existsSync(path));
  if (found !== undefined) return found;
  throw new Error('libfaketime is not installed: apt-get install faketime (npm test does so when it may)');
}

export class WallClock {
  readonly #file: string;
  readonly environment: Readonly<Record<string, string>>;

  /** `directory`: the caller's to remove. */
  constructor(directory: string, name: string) {
    this.#file = join(directory, `${name}.wall-clock`);
    this.stand(0);
    this.environment = {
      LD_PRELOAD: libfaketime(),
      FAKETIME_TIMESTAMP_FILE: this.#file,
      FAKETIME_NO_CACHE: '1',
      FAKETIME_DONT_FAKE_MONOTONIC: '1',
    };
  }

  /** From now on it is so many seconds ahead of the machine's; negative: behind. */
  stand(aheadSeconds: number): void {
    const sign = aheadSeconds < 0 ? '-' : '+';
    writeFileSync(`${this.#file}.new`, `${sign}${Math.abs(aheadSeconds)}\n`);
    renameSync(`${this.#file}.new`, this.#file);
  }

  /** What a process that was killed had no time to take away. */
  static forget(pid: number): void {
    for (const name of [`faketime_shm_${pid}`, `sem.faketime_sem_${pid}`])
      rmSync(join('/dev/shm', name), { force: true });
  }
}
