// Removed inodes: their bytes stay until the removal is durable.
import { expect, test } from 'vitest';
import { Condemned } from '../../src/gateway/condemned.js';

function begin(sync: (events: string[]) => Promise<void>) {
  const events: string[] = [];
  const condemned = new Condemned({
    cache: {
      condemn: (ino) => events.push(`condemn ${ino}`),
      forget: (ino) => events.push(`forget ${ino}`),
    },
    sync: () => sync(events),
    onForgotten: (count) => events.push(`${count} forgotten`),
    intervalMs: 60_000,
    onError: (error) => events.push(`error ${(error as Error).message}`),
  });
  return { condemned, events };
}

test('a removed file is condemned at once, and forgotten only when its removal is durable', async () => {
  let durable = (): void => {};
  const { condemned, events } = begin(async (log) => {
    await new Promise<void>((resolve) => {
      durable = resolve;
    });
    log.push('synced');
  });
  condemned.add(7);
  expect(events).toEqual(['condemn 7']);
  const settled = condemned.settle();
  await Promise.resolve();
  condemned.add(8); // Removed while the sync runs, which may have passed it already.
  expect(events).toEqual(['condemn 7', 'condemn 8']);
  durable();
  await settled;
  expect(events).toEqual(['condemn 7', 'condemn 8', 'synced', 'forget 7', '1 forgotten']);
  const rest = condemned.settle();
  await Promise.resolve();
  durable();
  await rest;
  expect(events.slice(5)).toEqual(['synced', 'forget 8', '1 forgotten']);
  expect(condemned.forgotten).toBe(2);
});

test('a removal that cannot be made durable is kept, and forgotten later', async () => {
  let fails = true;
  const { condemned, events } = begin(async () => {
    if (fails) throw new Error('no sync');
  });
  condemned.add(7);
  await expect(condemned.settle()).rejects.toThrow('no sync');
  expect(events).toEqual(['condemn 7']);
  fails = false;
  await condemned.settle();
  expect(events).toEqual(['condemn 7', 'forget 7', '1 forgotten']);
});
