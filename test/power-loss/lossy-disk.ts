// A disk that loses power on demand (test/native-tools/lossy_fs.h): mounted on a directory, cut, and started again from
// what survived. Everything on it is hit at the same instant.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { isMounted } from '../support/mount-under-test.js';
import { nativeTool } from '../support/native-tool.js';

/** What the cut took, in pages of file data and in changed names. */
export interface CutReport {
  readonly unsyncedPages: number;
  readonly lostPages: number;
  readonly unsyncedNames: number;
  readonly lostNames: number;
}

/** Built when the file is loaded: a compiler has more time than a test. */
const LOSSY_FS = nativeTool('lossy_fs', ['fuse3']);
const ANSWER_MS_MAX = 60_000;
const live = new Set<LossyDisk>();

export class LossyDisk implements Disposable {
  readonly base = mkdtempSync(join(tmpdir(), 'penstock-disk-'));
  /** Where programs see the disk. */
  readonly path = join(this.base, 'disk');
  #image = join(this.base, 'image-0');
  #cuts = 0;
  #server: ChildProcess | undefined;
  #lines: AsyncIterableIterator<string> | undefined;

  private constructor() {
    mkdirSync(this.path);
    mkdirSync(this.#image);
  }

  static async start(): Promise<LossyDisk> {
    const disk = new LossyDisk();
    live.add(disk);
    try {
      await disk.powerOn();
    } catch (error) {
      disk[Symbol.dispose]();
      throw error;
    }
    return disk;
  }

  /** The directory that the disk was last started from. */
  get image(): string {
    return this.#image;
  }

  async powerOn(): Promise<void> {
    const server = spawn(LOSSY_FS, [this.#image, this.path], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    server.stdin.on('error', () => {});
    this.#server = server;
    this.#lines = createInterface({ input: server.stdout })[Symbol.asyncIterator]();
    const line = await this.#answer();
    if (line !== 'ready') throw new Error(`the disk did not start: ${line}`);
  }

  /** Until its next start it says that it synced, and does not. */
  lie(): void {
    this.#server?.stdin?.write('lie\n');
  }

  /** Loses power after `requests` more requests. From then on nothing on it works; `clear` takes the dead mount away. */
  async cut(seed: number, requests: number): Promise<CutReport> {
    this.#cuts += 1;
    const image = join(this.base, `image-${this.#cuts}`);
    this.#server?.stdin?.write(`cut ${seed} ${requests} ${image}\n`);
    const line = await this.#answer();
    const [word, unsyncedPages, lostPages, unsyncedNames, lostNames] = line.split(' ');
    if (word !== 'cut') throw new Error(`the cut failed: ${line}`);
    rmSync(this.#image, { recursive: true });
    this.#image = image;
    return {
      unsyncedPages: Number(unsyncedPages),
      lostPages: Number(lostPages),
      unsyncedNames: Number(unsyncedNames),
      lostNames: Number(lostNames),
    };
  }

  /** Who used the disk is gone. */
  clear(): void {
    for (let tries = 0; tries < 8 && isMounted(this.path); tries += 1) spawnSync('umount', ['-l', this.path]);
    if (isMounted(this.path)) throw new Error(`${this.path} is still mounted`);
  }

  [Symbol.dispose](): void {
    live.delete(this);
    this.#server?.kill('SIGKILL');
    this.clear();
    if (process.env.PENSTOCK_TEST_KEEP === undefined)
      rmSync(this.base, { recursive: true, force: true, maxRetries: 5 });
  }

  async #answer(): Promise<string> {
    let watchdog: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      watchdog = setTimeout(() => reject(new Error('the disk does not answer')), ANSWER_MS_MAX);
    });
    try {
      const next = await Promise.race([this.#lines?.next(), late]);
      return next?.done === false ? next.value : 'it ended';
    } finally {
      clearTimeout(watchdog);
    }
  }
}

process.on('exit', () => {
  for (const disk of live) disk[Symbol.dispose]();
});
