// Where a volume cannot be mounted, and what cannot be mounted: one clear line, the right exit code, nothing touched.
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { penstock } from '../support/mount-under-test.js';
import { filesBelow } from './corrupt.js';
import { expectRefusal, Fixture, mountCommand, unavailable } from './fixture.js';

describe.skipIf(unavailable)('what cannot be mounted', { timeout: 120_000 }, () => {
  const fixture = new Fixture();

  it('refuses a mountpoint that is not empty', async () => {
    const volume = await fixture.start();
    await volume.umount();
    writeFileSync(join(volume.path, 'mine'), 'do not hide this');
    expectRefusal(await mountCommand(volume), 1, /mnt is not empty/);
    expect(readFileSync(join(volume.path, 'mine'), 'utf8')).toBe('do not hide this');
  });

  it('refuses a mountpoint that is not a directory', async () => {
    const volume = await fixture.start();
    await volume.umount();
    rmSync(volume.path, { recursive: true });
    writeFileSync(volume.path, '');
    expectRefusal(await mountCommand(volume), 1, /mnt is not a directory/);
  });

  it('refuses a mountpoint that does not exist', async () => {
    const volume = await fixture.start();
    await volume.umount();
    rmSync(volume.path, { recursive: true });
    expectRefusal(await mountCommand(volume), 1, /mnt does not exist/);
  });

  it('refuses a mountpoint that is already one, and a store that is in use', async () => {
    const volume = await fixture.start();
    await writeFile(join(volume.path, 'a'), 'still here');
    expectRefusal(await mountCommand(volume), 1, /already|in use|serve/);
    const other = join(fixture.base, 'other');
    mkdirSync(other);
    const cache = join(fixture.base, 'other-cache');
    mkdirSync(cache);
    const second = ['mount', volume.store, other, '--name', 'test', '--cache-dir', cache];
    // Also for one who does not see the register of the first: the lock lies in the store.
    expectRefusal(await penstock(second, volume.environment, 30_000), 1, /already|in use|serve|lock/);
    const blind = { ...process.env, PENSTOCK_RUNTIME_DIR: join(fixture.base, 'other-run') };
    expectRefusal(await penstock(second, blind, 30_000), 1, /already|in use|serve|lock/);
    expect(await readFile(join(volume.path, 'a'), 'utf8')).toBe('still here');
  });

  it('says misuse for what cannot be meant', async () => {
    expectRefusal(await penstock(['mount', 'nonsense', fixture.base]), 2, /nonsense/);
    expectRefusal(await penstock(['mount', `file:${fixture.base}/store`]), 2, /mountpoint/);
  });

  it('refuses a store that is not there, and a volume that it does not have', async () => {
    const volume = await fixture.start();
    await volume.umount();
    const argv = ['--cache-dir', volume.cacheDirectory];
    const absent = ['mount', `file:${fixture.base}/absent`, volume.path, '--name', 'test', ...argv];
    expectRefusal(await penstock(absent, volume.environment), 1, /absent/);
    const empty = ['--cache-dir', join(fixture.base, 'empty-cache')];
    mkdirSync(join(fixture.base, 'empty-cache'));
    const unknown = ['mount', volume.store, volume.path, '--name', 'unknown', ...empty];
    expectRefusal(await penstock(unknown, volume.environment), 1, /unknown/);
  });

  it('refuses a store of a newer format, and leaves it as it is', async () => {
    const volume = await fixture.start();
    await writeFile(join(volume.path, 'kept'), 'kept');
    await volume.umount();
    const formats = filesBelow(volume.storeDirectory, 'format');
    expect(formats.length).toBeGreaterThan(0);
    for (const path of formats) {
      const before = readFileSync(path);
      writeFileSync(path, before.toString('latin1').replace(/"format":\s*\d+/, '"format":999'), 'latin1');
      expectRefusal(await mountCommand(volume), 1, /newer|format/);
      writeFileSync(path, before);
    }
    await volume.mount();
    expect(await readFile(join(volume.path, 'kept'), 'utf8')).toBe('kept');
  });
});
