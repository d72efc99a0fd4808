// kill -9 of the daemon at random moments under load, twenty times; first, that the verifier of acknowledged operations
// itself finds what is wrong.
import { spawn } from 'node:child_process';
import {
  appendFileSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { command } from '../support/command.js';
import { MountUnderTest } from '../support/mount-under-test.js';
import { placeUnavailable } from '../support/place.js';
import { ACKLOAD, Lives } from './life.js';

const KILLS = 20;

describe('the verifier of acknowledged operations, on a plain directory', () => {
  let base: string;
  let log: string;
  beforeEach(async () => {
    base = mkdtempSync(join(tmpdir(), 'penstock-verifier-'));
    log = join(base, 'log');
    const worker = spawn(ACKLOAD, ['run', join(base, 'data'), log, '4'], { stdio: 'ignore' });
    const gone = new Promise((resolve) => worker.on('exit', resolve));
    while (!existsSync(log) || statSync(log).size < 10_000) await sleep(10);
    worker.kill('SIGKILL');
    await gone;
  });
  afterEach(() => rmSync(base, { recursive: true, force: true }));
  const verify = () => command(ACKLOAD, ['verify', join(base, 'data'), log]);

  it('accepts what a killed workload left', async () => {
    expect(await verify()).toMatch(/^\d+ acknowledged/);
  });

  it('finds a lost file', async () => {
    const name = lastWritten(log);
    rmSync(join(base, 'data', name));
    await expect(verify()).rejects.toThrow('names: found');
  });

  it('finds one wrong byte', async () => {
    const path = join(base, 'data', lastWritten(log));
    const bytes = readFileSync(path);
    // One past the data of the last write would be in doubt; its first byte was acknowledged.
    bytes[0] = (bytes[0] ?? 0) ^ 0x80;
    writeFileSync(path, bytes);
    await expect(verify()).rejects.toThrow('wrong bytes from offset 0');
  });

  it('finds bytes that nobody wrote', async () => {
    appendFileSync(join(base, 'data', lastWritten(log)), 'x');
    await expect(verify()).rejects.toThrow('size');
  });
});

describe.skipIf(placeUnavailable() || process.env.PENSTOCK_TEST_ROOT)('kill -9 of the daemon', () => {
  it(`loses nothing acknowledged, ${KILLS} times`, { timeout: 900_000 }, async () => {
    await using mount = await MountUnderTest.start({ cacheSize: '64M' });
    const lives = new Lives(mount, 20);
    for (let kill = 0; kill < KILLS; kill += 1) {
      const life = await lives.live();
      expect(life.pressure.dirtyBytes).toBeGreaterThan(0);
      expect(life.pressure.inFlightBytes).toBeGreaterThan(0);
      expect(life.acknowledged).toBeGreaterThan(10);
    }
    await mount.evict();
    await lives.verify();
  });
});

/** A regular file that exists at the end and is not the subject of an operation in doubt. */
function lastWritten(log: string): string {
  const lines = readFileSync(log, 'utf8').trim().split('\n');
  const doubtful = new Set(lines.at(-1)?.split(' '));
  const alive = new Map<string, boolean>();
  for (const line of lines) {
    const [kind, , verb = '', name = '', other = ''] = line.split(' ');
    if (kind !== 'B') continue;
    if (verb === 'rename') alive.set(other, alive.get(name) ?? false);
    if (verb === 'rename' || verb === 'unlink') alive.set(name, false);
    if (verb === 'link' || verb === 'symlink') alive.set(other, false).set(name, false);
    if (verb === 'write') alive.set(name, true);
  }
  const found = [...alive].find(([name, is]) => is && !doubtful.has(name));
  if (!found) throw new Error('the workload left no file');
  return found[0];
}
