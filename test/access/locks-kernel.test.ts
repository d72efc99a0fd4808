// The same lock requests to the kernel (fcntl and flock on tmpfs, one process per owner) and to the lock table: same
// answers, and after every step the same list of locks, split and joined in the same way.
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LockTable } from '../../src/metadata/lock-table.js';
import { isWaiting, kernelLocks, LockOwner } from '../support/lock-owner.js';
import { lock, toEnd } from './service.js';

const INO = 5;
const OWNERS = 3;

interface Step {
  readonly owner: number;
  readonly flavour: 'posix' | 'flock';
  readonly kind: 'read' | 'write' | 'unlock';
  readonly start: number;
  /** 0: to the end of the file. */
  readonly length: number;
}

const step: fc.Arbitrary<Step> = fc.record({
  owner: fc.nat(OWNERS - 1),
  flavour: fc.constantFrom('posix' as const, 'posix' as const, 'posix' as const, 'flock' as const),
  kind: fc.constantFrom('read' as const, 'read' as const, 'write' as const, 'unlock' as const),
  start: fc.nat(24),
  length: fc.oneof(
    { weight: 9, arbitrary: fc.integer({ min: 1, max: 12 }) },
    { weight: 1, arbitrary: fc.constant(0) },
  ),
});

function perform(table: LockTable, { owner, flavour, kind, start, length }: Step, pid: number): string {
  const end = length === 0 ? toEnd : start + length - 1;
  const request = lock(INO, BigInt(owner), kind === 'read' ? 'read' : 'write', start, end, { flavour, pid });
  if (kind !== 'unlock') return table.tryAcquire(1, request) ? 'ok' : 'EAGAIN';
  table.release(1, request);
  return 'ok';
}

function tableLocks(table: LockTable): string[] {
  return table
    .holdings(1, INO)
    .flatMap(({ holder, ranges, pid }) =>
      ranges.map(
        ({ start, end, kind }) => `${holder.flavour} ${kind} ${pid} ${start} ${end === toEnd ? 'EOF' : end}`,
      ),
    )
    .sort();
}

describe('compared with the kernel', () => {
  const directory = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'penstock-locks-'));
  let owners: LockOwner[] = [];
  beforeAll(() => {
    owners = Array.from({ length: OWNERS }, () => new LockOwner());
  });
  afterAll(() => {
    for (const owner of owners) owner[Symbol.dispose]();
    rmSync(directory, { recursive: true });
  });

  it('random fcntl and flock histories agree, step by step', { timeout: 240_000 }, async () => {
    let runs = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 40 }), async (steps) => {
        const path = join(directory, `file-${runs++}`);
        const inodes = await Promise.all(owners.map((owner) => owner.ask(`open ${path}`)));
        const table = new LockTable();
        for (const one of steps) {
          const owner = owners[one.owner]!;
          const range = one.flavour === 'flock' ? '' : ` ${one.start} ${one.length}`;
          const theirs = await owner.ask(`${one.flavour} ${one.kind}${range}`);
          expect(perform(table, one, owner.pid)).toBe(theirs === 'EWOULDBLOCK' ? 'EAGAIN' : theirs);
          expect(tableLocks(table)).toEqual(kernelLocks(inodes[0]!));
        }
      }),
      { numRuns: 200 },
    );
  });

  it('a cycle of two waiting processes is EDEADLK for the second, as in the kernel', async () => {
    const [first, second] = owners as [LockOwner, LockOwner];
    const path = join(directory, 'deadlock');
    await Promise.all([first.ask(`open ${path}`), second.ask(`open ${path}`)]);
    await first.ask('posix write 0 1');
    await second.ask('posix write 1 1');
    const waiting = first.ask('wait write 1 1');
    await expect.poll(() => isWaiting(first.pid)).toBe(true);
    expect(await second.ask('wait write 0 1')).toBe('EDEADLK');
    await second.ask('posix unlock 1 1');
    expect(await waiting).toBe('ok');

    const table = new LockTable();
    const patience = new AbortController().signal;
    table.tryAcquire(1, lock(INO, 1n, 'write', 0, 0));
    table.tryAcquire(1, lock(INO, 2n, 'write', 1, 1));
    const ours = table.acquire(1, lock(INO, 1n, 'write', 1, 1), patience);
    await expect(table.acquire(1, lock(INO, 2n, 'write', 0, 0), patience)).rejects.toMatchObject({
      code: 'EDEADLK',
    });
    table.release(1, lock(INO, 2n, 'write', 1, 1));
    await ours;
  });
});
