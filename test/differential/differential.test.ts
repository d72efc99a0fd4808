// The differential suites: the harness proven on two kernel file systems and on a planted fault, then a mount of ours
// against the disk, interrupted by drains, remounts, evictions and kills of the daemon.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { compare, type Subject } from './compare.js';
import { dataSuite } from './data-suite.js';
import { nameSuite } from './name-suite.js';

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
