// The differential suites: the harness proven on two kernel file systems and on a planted fault, then a mount of ours
// against the disk, interrupted by drains, remounts, evictions and kills of the daemon.
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { rename, rm, statfs, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { MountUnderTest } from '../support/mount-under-test.js';
import { placeUnavailable } from '../support/place.js';
import { SystemCallServer } from '../support/system-call-server.js';
import { compare, type Outcome, type Subject } from './compare.js';
import { dataSuite } from './data-suite.js';
import { nameSuite } from './name-suite.js';
import { makeReference, subjectOf } from './subject.js';

// The same programs in every run, so that a change is judged by what it changed; `npm run differential` looks further, with
// seeds of its own, for as long as one likes.
const CALM = { seed: 1, programsMax: 250, seconds: 60 };
const INTERRUPTED = { seed: 1001, programsMax: 30, seconds: 120 };

const execFileAsync = promisify(execFile);

/** A process of its own: it opens, asks and reads as fast as it can. */
const READ_FOR_A_SECOND = `
  const fs = require('node:fs');
  const failures = new Set();
  let opens = 0;
  for (const end = performance.now() + 1000; performance.now() < end; opens += 1) {
    try {
      const fd = fs.openSync(process.argv[1]);
      try {
        const { size } = fs.fstatSync(fd);
        const text = fs.readFileSync(fd, 'latin1');
        if (size !== 10 || text !== '0123456789') failures.add(size + ' bytes: ' + text);
      } finally {
        fs.closeSync(fd);
      }
    } catch (error) {
      failures.add(error.message);
    }
  }
  console.log(JSON.stringify({ opens, failures: [...failures] }));
`;

describe('the differential harness, disk against tmpfs', () => {
  let reference: string;
  let subject: Subject;
  beforeAll(() => {
    reference = mkdtempSync(join(tmpdir(), 'penstock-reference-'));
    const root = mkdtempSync('/dev/shm/penstock-subject-');
    subject = { root, betweens: [], interrupt: async () => {} };
  });
  afterAll(() => {
    for (const root of [reference, subject.root]) rmSync(root, { recursive: true, force: true });
  });

  for (const suite of [dataSuite, nameSuite]) {
    it(`finds no difference in ${suite.name} between two kernel file systems`, async () => {
      const outcome = await compare({ suite, reference, subject, seconds: 3 });
      expect(outcome.programs).toBeGreaterThan(3);
    });
  }

  it('finds a planted stale byte behind a truncated end and shrinks the program to a few operations', {
    timeout: 240_000,
  }, async () => {
    const planted = { ...subject, plant: 'tail' };
    const failure = await compare({ suite: dataSuite, reference, subject: planted, seconds: 60 }).then(
      () => 'no difference found',
      (error: Error) => error.message,
    );
    expect(failure).toMatch(/seed \d+, shrunk \d+ times/);
    expect(failure).toContain('ftruncate');
    expect(failure.split('\n').length).toBeLessThan(25);
  });
});

/** What has no name any more, kept by handles that the kernel opened without asking, in every way there is. */
function removedWhileOpen(): string[] {
  const kinds = ['fifo', 'socket', 'device', 'file', 'symlink', 'directory', 'replaced'];
  return kinds.flatMap((kind, slot) => {
    const make = { symlink: 'symlink x n', directory: 'mkdir n 755', replaced: 'mkdir n 755' }[kind];
    const flags = ['fifo', 'device'].includes(kind) ? 'b' : kind.startsWith('d') ? 'rD' : 'rnp';
    const remove = { directory: 'rmdir n', replaced: 'rename other n -' }[kind];
    const lines = ['mkdir other 700', make ?? `mknod n ${kind} 644`, `open ${slot} n ${flags} 0`];
    lines.push(remove ?? 'unlink n', `fstat ${slot}`, `fchmod ${slot} 700`, `fchown ${slot} 1001 1002`);
    return [
      ...lines,
      `fstat ${slot}`,
      `close ${slot}`,
      `churn c${slot} 60`,
      kind === 'replaced' ? 'rmdir n' : 'rmdir other',
    ];
  });
}

describe.skipIf(placeUnavailable())('a volume against the disk', () => {
  let reference: string;
  let mount: MountUnderTest;
  beforeAll(async () => {
    reference = makeReference();
    mount = await MountUnderTest.start({ cacheSize: '64M' });
  });
  afterAll(async () => {
    rmSync(reference, { recursive: true, force: true });
    await mount?.[Symbol.asyncDispose]();
  });

  it('shows what is removed while only the kernel knows that it is open, and then lets it go', async () => {
    using disk = new SystemCallServer(reference);
    using volume = new SystemCallServer(mount.path);
    const lines = ['begin removed', ...removedWhileOpen()];
    const [expected, actual] = await Promise.all([disk.run(lines), volume.run(lines)]);
    expect(lines.map((text, index) => `${text} -> ${actual[index]}`)).toEqual(
      lines.map((text, index) => `${text} -> ${expected[index]}`),
    );
    await Promise.all([disk.run(['end removed']), volume.run(['end removed'])]);
    const inodes = async () => Number((await statfs(mount.path)).files - (await statfs(mount.path)).ffree);
    await expect.poll(inodes).toBe(1);
    await mount.fsck();
  });

  it('takes set-ID bits from whom the disk takes them', async () => {
    using disk = new SystemCallServer(reference);
    using volume = new SystemCallServer(mount.path);
    const lines = ['begin bits', 'umask 0', 'mknod p fifo 6711', 'put f 10 1', 'chmod f 2666', 'put g 10 1'];
    lines.push(
      'chmod g 2666',
      'chown g 0 1001',
      'as 1001 1001',
      'chown p -1 -1',
      'open 0 f w 0',
      'open 1 g w 0',
    );
    lines.push('write 0 100 1', 'write 1 100 1', 'fstat 0', 'fstat 1', 'as 0 0', 'chown p -1 -1', 'lstat p');
    const [expected, actual] = await Promise.all([disk.run(lines), volume.run(lines)]);
    const readable = (answers: readonly string[]) => lines.map((text, at) => `${text} -> ${answers[at]}`);
    expect(readable(actual)).toEqual(readable(expected));
    expect(expected.slice(14, 16)).toEqual([
      expect.stringMatching(/^ok 100666/),
      expect.stringMatching(/^ok 102666/),
    ]);
    await Promise.all([disk.run(['end bits']), volume.run(['end bits'])]);
  });

  it('a file that others are renamed over can always be opened, asked and read', async () => {
    const path = join(mount.path, 'replaced');
    const draft = join(mount.path, 'draft');
    await writeFile(path, '0123456789');
    const reader = execFileAsync('node', ['-e', READ_FOR_A_SECOND, path]);
    let done = false;
    void reader.finally(() => {
      done = true;
    });
    while (!done) {
      await writeFile(draft, '0123456789');
      await rename(draft, path);
    }
    expect(JSON.parse((await reader).stdout)).toMatchObject({ failures: [], opens: expect.any(Number) });
    await rm(path);
  });

  for (const suite of [dataSuite, nameSuite]) {
    it(`${suite.name}: no difference`, { timeout: 180_000 }, async () => {
      const calm = { ...subjectOf(mount), betweens: [] };
      const outcome = await compare({ suite, reference, subject: calm, ...CALM });
      report(suite.name, outcome);
      await mount.fsck();
    });

    it(`${suite.name}: no difference across drain, remount, eviction and kill`, {
      timeout: 180_000,
    }, async () => {
      const outcome = await compare({ suite, reference, subject: subjectOf(mount), ...INTERRUPTED });
      report(suite.name, outcome);
      await mount.fsck();
    });
  }
});

function report(name: string, { programs, operations, seed, excluded }: Outcome): void {
  const left = excluded.length > 0 ? `, not compared: ${excluded.join(', ')}` : '';
  process.stdout.write(`${name}: ${programs} programs, ${operations} operations, seed ${seed}${left}\n`);
}
