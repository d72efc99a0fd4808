// Group commit of fsyncs: who shares a batch, what each is told, and that a large one holds up nobody.
import { expect, test } from 'vitest';
import { GroupFsync } from '../../src/gateway/group-fsync.js';

function begin() {
  const batches: number[][] = [];
  const finish: Array<(outcomes?: Array<Error | undefined>) => void> = [];
  const refuse: Array<(error: Error) => void> = [];
  const fsyncs = new GroupFsync({
    syncFiles: (inos) => {
      batches.push([...inos]);
      return new Promise((resolve, reject) => {
        finish.push((outcomes = [...inos].map(() => undefined)) => resolve(outcomes));
        refuse.push(reject);
      });
    },
  });
  return { fsyncs, batches, finish, refuse };
}

test('what comes while two batches are under way goes together in the next', async () => {
  const { fsyncs, batches, finish } = begin();
  const large = fsyncs.sync(1);
  const small = fsyncs.sync(2);
  const rest = [3, 4, 3].map((ino) => fsyncs.sync(ino));
  expect(batches).toEqual([[1], [2]]);
  finish[1]!();
  await small;
  expect(batches).toEqual([[1], [2], [3, 4, 3]]);
  // A file written again must not share a sync that began before: it waits for the next.
  const later = fsyncs.sync(4);
  finish[2]!();
  await Promise.all(rest);
  expect(batches[3]).toEqual([4]);
  finish[3]!();
  await later;
  finish[0]!();
  await large;
  expect(fsyncs.counters).toEqual({ files: 6, batches: 4 });
});

test('each is told of its own file; when the cache refuses, all are', async () => {
  const { fsyncs, finish, refuse } = begin();
  const first = [fsyncs.sync(1), fsyncs.sync(2)];
  const batch = Promise.allSettled([fsyncs.sync(3), fsyncs.sync(4), fsyncs.sync(5)]);
  finish[0]!();
  await first[0];
  finish[2]!([undefined, new Error('bad disk'), undefined]);
  expect(await batch).toMatchObject([
    { status: 'fulfilled' },
    { status: 'rejected', reason: new Error('bad disk') },
    { status: 'fulfilled' },
  ]);
  refuse[1]!(new Error('closed'));
  await expect(first[1]).rejects.toThrow('closed');
  const after = fsyncs.sync(6);
  finish[3]!();
  await after;
});
