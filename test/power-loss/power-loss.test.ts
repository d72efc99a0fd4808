// Power loss: metadata engine, cache log, cache files and extent store are cut at one instant, and each keeps any allowed
// subset of its unsynced writes. First, that the disk and the verifier themselves lose and find what they should.
import { spawn } from 'node:child_process';
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { command } from '../support/command.js';
import { mountUnavailable } from '../support/mount-under-test.js';
import { placeUnavailable } from '../support/place.js';
import { LossyDisk } from './lossy-disk.js';
import { Outages, POWERLOAD } from './outage.js';

const OUTAGES = 12;
/** On a busy machine fewer outages have to do. */
const OUTAGES_MIN = 5;
const BUDGET_MS = 70_000;
const SEED = 2026;
const PAGE = 4096;
const without = placeUnavailable() !== undefined;

describe('the verifier of what was synced, on a plain directory', () => {
  let base: string;
  let log: string;
  /** A file of at least a page whose content was synced after its last change. */
  let path: string;
  beforeEach(async () => {
    base = mkdtempSync(join(tmpdir(), 'penstock-verifier-'));
    log = join(base, 'log');
    for (let seed = 1; ; seed += 1) {
      const worker = spawn(POWERLOAD, ['run', join(base, 'data'), log, String(seed)], {
        stdio: 'ignore',
      });
      const gone = new Promise((resolve) => worker.on('exit', resolve));
      while (!existsSync(log) || statSync(log).size < 10_000) await sleep(10);
      worker.kill('SIGKILL');
      await gone;
      const found = lastSynced(base, log);
      if (found !== undefined) {
        path = found;
        return;
      }
      rmSync(join(base, 'data'), { recursive: true });
      rmSync(log);
    }
  });
  afterEach(() => rmSync(base, { recursive: true, force: true }));
  const verify = () => command(POWERLOAD, ['verify', join(base, 'data'), log]);

  it('accepts what a killed workload left', async () => {
    expect(await verify()).toMatch(/^\d+ acknowledged/);
  });

  it('finds a file that was exchanged for an older one', async () => {
    writeFileSync(join(base, 'copy'), readFileSync(path));
    renameSync(join(base, 'copy'), path);
    await expect(verify()).rejects.toThrow('names are as never since the last sync');
  });

  it('finds a page that reads as zeros', async () => {
    const fd = openSync(path, 'r+');
    writeSync(fd, new Uint8Array(Math.min(PAGE, statSync(path).size)), 0, undefined, 0);
    closeSync(fd);
    await expect(verify()).rejects.toThrow('page 0 holds what it never held');
  });

  it('finds a size that the file never had', async () => {
    writeFileSync(path, 'x', { flag: 'a' });
    await expect(verify()).rejects.toThrow('never so since the last sync');
  });
});

describe.skipIf(without || mountUnavailable())('the disk that loses power', () => {
  it('keeps what was synced, and of the rest a part: pages in any order, names in theirs', async () => {
    using disk = await LossyDisk.start();
    const outcomes = new Set<string>();
    for (let round = 0; round < 8; round += 1) {
      const directory = join(disk.path, `round-${round}`);
      mkdirSync(directory);
      const synced = openSync(join(directory, 'synced'), 'w+');
      writeSync(synced, Buffer.alloc(4 * PAGE, 'a'));
      fsyncSync(synced);
      for (let page = 0; page < 4; page += 1)
        writeSync(synced, Buffer.alloc(PAGE, 'b'), 0, PAGE, page * PAGE);
      writeFileSync(join(directory, 'draft'), 'draft');
      renameSync(join(directory, 'draft'), join(directory, 'final'));
      mkdirSync(join(directory, 'last'));
      closeSync(synced);

      const report = await disk.cut(round, 0);
      expect(report.unsyncedPages).toBeGreaterThanOrEqual(4);
      disk.clear();
      await disk.powerOn();
      const text = readFileSync(join(directory, 'synced'), 'latin1');
      expect(text).toMatch(/^[ab]{16384}$/);
      const pages = [0, 1, 2, 3].map((page) => text.slice(page * PAGE, (page + 1) * PAGE));
      for (const page of pages) expect(page).toMatch(/^(a+|b+)$/);
      const names = ['draft', 'final', 'last'].filter((name) => existsSync(join(directory, name)));
      expect(['', 'draft', 'final', 'final,last']).toContain(names.join());
      outcomes.add(`${pages.map((page) => page[0]).join('')} ${names.join()}`);
    }
    expect(outcomes.size).toBeGreaterThan(3);
  });
});

describe.skipIf(without || process.env.PENSTOCK_TEST_ROOT)('power loss', () => {
  it(`keeps what was synced and a consistent past, up to ${OUTAGES} times`, {
    timeout: 400_000,
  }, async () => {
    await using outages = await Outages.start(SEED, '64M');
    const end = performance.now() + BUDGET_MS;
    let lost = 0;
    let number = 0;
    while (number < OUTAGES_MIN || (number < OUTAGES && performance.now() < end)) {
      const { pressure, cut, acknowledged } = await outages.outage();
      number += 1;
      expect(pressure.dirtyBytes).toBeGreaterThan(0);
      expect(pressure.inFlightBytes).toBeGreaterThan(0);
      expect(acknowledged).toBeGreaterThan(10);
      lost += cut.lostPages + cut.lostNames;
    }
    expect(lost).toBeGreaterThan(0);
    await outages.close();
    process.stdout.write(`seed ${SEED}: ${number} power losses\n`);
  });

  it('is noticed on a disk that only says it synced', { timeout: 200_000 }, async () => {
    await using outages = await Outages.start(SEED, '64M');
    const several = async () => {
      for (let number = 0; number < 5; number += 1) {
        outages.disk.lie();
        await outages.outage();
      }
    };
    await expect(several()).rejects.toThrow(/^outage \d of seed/);
  });
});

function lastSynced(base: string, log: string): string | undefined {
  const found = new Map<string, boolean>();
  let begun: string[] = [];
  const apply = ([, , verb = '', path = '', other = '']: readonly string[]) => {
    if (verb === 'rename' || verb === 'unlink') {
      for (const name of found.keys()) if (name === path || name.startsWith(`${path}/`)) found.delete(name);
      found.delete(other);
    } else {
      found.set(path, verb === 'fsync');
    }
  };
  for (const line of readFileSync(log, 'utf8').split('\n')) {
    const words = line.split(' ');
    if (words[0] === 'B') begun = words;
    if (words[0] !== 'A') continue;
    apply(begun);
    begun = [];
  }
  // What was in doubt is not to be relied on.
  found.delete(begun[3] ?? '');
  found.delete(begun[4] ?? '');
  for (const [path, synced] of found) {
    const full = join(base, 'data', path);
    if (synced && existsSync(full) && statSync(full).isFile() && statSync(full).size >= PAGE) {
      if (readFileSync(full)[0] !== 0) return full;
    }
  }
  return undefined;
}
