// The differential suites: the harness proven on two kernel file systems and on a planted fault, then a mount of ours
// against the disk, interrupted by drains, remounts, evictions and kills of the daemon.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { MountUnderTest } from '../support/mount-under-test.js';
import { placeUnavailable } from '../support/place.js';
import { compare, type Outcome, type Subject } from './compare.js';
import { dataSuite } from './data-suite.js';
import { nameSuite } from './name-suite.js';
import { makeReference, subjectOf } from './subject.js';

// The same programs in every run, so that a change is judged by what it changed; `npm run differential` looks further, with
// seeds of its own, for as long as one likes.
const CALM = { seed: 1, programsMax: 250, seconds: 60 };
const INTERRUPTED = { seed: 1001, programsMax: 30, seconds: 120 };

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

  it('finds a planted stale byte behind a truncated end and shrinks the program to a few operations', async () => {
    const planted = { ...subject, plant: 'tail' };
    const failure = await compare({ suite: dataSuite, reference, subject: planted, seconds: 20 }).then(
      () => 'no difference found',
      (error: Error) => error.message,
    );
    expect(failure).toMatch(/seed \d+, shrunk \d+ times/);
    expect(failure).toContain('ftruncate');
    expect(failure.split('\n').length).toBeLessThan(25);
  });
});

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
