// Real programs at work in a volume whose cache (64 MiB) is smaller than their data; at the end everything is read once
// more from the store alone.
import { cpSync, existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { copyFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../bindings/load.js';
import { command, lacks } from '../support/command.js';
import { differences, manifest } from '../support/manifest.js';
import { openPlace, type Place, placeUnavailable } from '../support/place.js';
import { writeRandomTree } from './random-tree.js';
import { commitUntilKilled, reopen } from './sqlite.js';

const SHAPE = { smallFiles: 400, largeFiles: 6, largeBytes: 24 << 20 };
const repository = process.env.PENSTOCK_TEST_REPOSITORY ?? packageRoot();

async function registryAnswers(): Promise<boolean> {
  const answer = await command('npm', ['ping', '--fetch-retries=0'], { timeoutMs: 8000 }).catch(
    () => undefined,
  );
  if (answer === undefined) process.stderr.write('left out npm ci: the registry does not answer\n');
  return answer !== undefined;
}

describe.skipIf(placeUnavailable())('programs on a volume with a small cache', { timeout: 240_000 }, () => {
  let place: Place;
  let scratch: string;
  const read = (when: string) =>
    manifest(place.path).catch((error: Error) => {
      throw new Error(`${when}: ${error.message}\n${place.mount?.log ?? ''}`, { cause: error });
    });
  const at = (...parts: string[]) => join(place.path, ...parts);

  beforeAll(async () => {
    place = await openPlace({ cacheSize: '64M' });
    scratch = mkdtempSync(join(tmpdir(), 'penstock-programs-'));
  });
  afterAll(async () => {
    rmSync(scratch, { recursive: true, force: true });
    await place?.[Symbol.asyncDispose]();
  });

  it('keeps a tree of twice the cache', async () => {
    mkdirSync(at('tree'));
    mkdirSync(join(scratch, 'tree'));
    await writeRandomTree(at('tree'), SHAPE);
    await writeRandomTree(join(scratch, 'tree'), SHAPE);
    // Times differ by nature: both were "now".
    const [expected, actual] = [await manifest(join(scratch, 'tree')), await manifest(at('tree'))];
    expect(differences(withoutTimes(expected), withoutTimes(actual))).toEqual([]);
  });

  it.skipIf(!existsSync(join(repository, '.git')))('git clone, git fsck, a clean work tree', async () => {
    await command('git', ['clone', '--quiet', '--no-local', repository, at('clone')]);
    await command('git', ['fsck', '--full', '--strict'], { cwd: at('clone') });
    expect(await command('git', ['status', '--porcelain'], { cwd: at('clone') })).toBe('');
    await command('git', ['gc', '--quiet'], { cwd: at('clone') });
    await command('git', ['fsck', '--full'], { cwd: at('clone') });
  });

  it('npm ci of this project', async ({ skip }) => {
    if (!(await registryAnswers())) skip('the registry does not answer');
    mkdirSync(at('project'));
    for (const file of ['package.json', 'package-lock.json', '.npmrc']) {
      if (existsSync(join(packageRoot(), file)))
        await copyFile(join(packageRoot(), file), at('project', file));
    }
    const quiet = ['--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund', '--loglevel=error'];
    const options = { cwd: at('project'), timeoutMs: 200_000 };
    // A lock file made where the registry lacks other platforms' packages is one that `npm ci` refuses.
    await command('npm', ['ci', ...quiet], options).catch(async (error: Error) => {
      if (!error.message.includes('EUSAGE')) throw error;
      await command('npm', ['install', ...quiet], options);
    });
    const version = await command(at('project/node_modules/.bin/tsc'), ['--version']);
    expect(version).toMatch(/^Version \d/);
  });

  it.skipIf(lacks('cmake') || lacks('ninja'))('a C++ build', async () => {
    mkdirSync(at('cxx'));
    for (const part of ['native/CMakeLists.txt', 'native/base']) {
      cpSync(join(packageRoot(), part), at('cxx', part), { recursive: true });
    }
    cpSync(join(packageRoot(), 'test/native-tools'), at('cxx/native/tools'), { recursive: true });
    await command('cmake', ['-G', 'Ninja', '-S', at('cxx/native'), '-B', at('cxx/out')]);
    await command('ninja', ['-C', at('cxx/out'), '-j', '2', 'penstock_native']);
    // Time stamps order the products after their sources: nothing is left to do.
    expect(await command('ninja', ['-C', at('cxx/out'), 'penstock_native'])).toContain('no work to do');
  });

  for (const mode of ['wal', 'delete'] as const) {
    it.skipIf(lacks('sqlite3'))(`sqlite, journal_mode=${mode}, killed while it commits`, async () => {
      const path = at(`${mode}.db`);
      let acknowledged = 0;
      for (let life = 0; life < 3; life += 1) {
        acknowledged = Math.max(acknowledged, await commitUntilKilled(path, mode, 400 + Math.random() * 600));
        const { verdict, highest } = await reopen(path);
        expect(verdict).toBe('ok');
        expect(highest).toBeGreaterThanOrEqual(acknowledged);
      }
      expect(acknowledged).toBeGreaterThan(10);
    });
  }

  it('tar and untar, with times to the nanosecond', async () => {
    const archive = at('tree.tar');
    await command('tar', ['--format=posix', '-C', join(scratch, 'tree'), '-cSf', archive, '.']);
    mkdirSync(at('untarred'));
    await command('tar', ['-C', at('untarred'), '-xSf', archive]);
    const [expected, actual] = [await manifest(join(scratch, 'tree')), await manifest(at('untarred'))];
    expect(differences(expected, actual)).toEqual([]);
  });

  it.skipIf(lacks('rsync'))('rsync twice, with nothing to do the second time', async () => {
    const copy = ['-aHS', '--itemize-changes', `${join(scratch, 'tree')}/`, `${at('synced')}/`];
    expect(await command('rsync', copy)).not.toBe('');
    expect(await command('rsync', copy)).toBe('');
    expect(await command('rsync', ['--checksum', ...copy])).toBe('');
  });

  it('reads everything the same from the store alone, and fsck is clean', async () => {
    await place.check();
    const before = await read('before the cache was deleted');
    await place.evict();
    const after = await read('from the store alone');
    expect(differences(before, after)).toEqual([]);
    await place.check();
  });
});

function withoutTimes(full: ReadonlyMap<string, string>): Map<string, string> {
  return new Map([...full].map(([path, text]) => [path, text.replace(/^(\d+) -?\d+/, '$1')]));
}
