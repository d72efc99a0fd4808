// Locks as clients of the access node meet them: how each flavour ends, the order of waiting, interruption, the end of a
// session, a restart of the service.
import { setMaxListeners } from 'node:events';
import { describe, expect, it } from 'vitest';
import type { Session } from '../../src/access/contract.js';
import { VolumeKeys } from '../../src/metadata/keys.js';
import type { LockRequest } from '../../src/metadata/lock-contract.js';
import { callerOf, code, lock, ROOT, type Service, startService } from './service.js';

const open = (service: Service, name = 'host-a') => service.node.openSession(ROOT, 'acme/data', name);

async function started(options: Parameters<typeof startService>[0] = {}) {
  const service = await startService(options);
  return { service, a: client(await open(service, 'a')), b: client(await open(service, 'b')) };
}

/** A session with its caller filled in. */
function client(session: Session) {
  const caller = callerOf(session.identity);
  return {
    session,
    test: (request: LockRequest) => session.locks.test(caller, request),
    take: (request: LockRequest) => session.locks.acquire(caller, request),
    wait: (request: LockRequest, signal = new AbortController().signal) =>
      session.locks.acquire(caller, request, signal),
    drop: (request: LockRequest) => session.locks.release(caller, request),
    flush: (ino: number, owner: bigint) => session.locks.releaseOwner(caller, ino, owner),
    release: (ino: number, handle: bigint) => session.locks.releaseHandle(caller, ino, handle),
  };
}

const flock = (ino: number, handle: bigint, kind: 'read' | 'write') =>
  lock(ino, 99n, kind, 0, undefined, { flavour: 'flock', handle });

describe('how locks end', () => {
  it('FLUSH drops what its owner locked, through whatever handle, and nothing else', async () => {
    const { a, b } = await started();
    await a.take(lock(1, 10n, 'write', 0, 9, { handle: 1n }));
    await a.take(lock(1, 10n, 'write', 20, 29, { handle: 2n }));
    await a.take(lock(1, 11n, 'write', 40, 49, { handle: 3n }));
    await a.take(lock(2, 10n, 'write', 0, 9, { handle: 4n }));
    await a.flush(1, 10n);
    await b.take(lock(1, 50n, 'write', 0, 39));
    await expect(b.take(lock(1, 50n, 'write', 40, 49))).rejects.toEqual(code('EAGAIN'));
    await expect(b.take(lock(2, 50n, 'write', 0, 0))).rejects.toEqual(code('EAGAIN'));
  });

  it('RELEASE drops the flock of its handle only', async () => {
    const { a, b } = await started();
    await a.take(flock(1, 1n, 'read'));
    await a.take(flock(1, 2n, 'read'));
    await a.flush(1, 99n);
    await a.release(1, 1n);
    await expect(b.take(flock(1, 3n, 'write'))).rejects.toEqual(code('EAGAIN'));
    await a.release(1, 2n);
    await b.take(flock(1, 3n, 'write'));
  });

  it('an OFD lock outlives every FLUSH and goes with its handle', async () => {
    const { a, b } = await started();
    const ofd = lock(1, 0xfeedn, 'write', 0, 9, { handle: 7n });
    await a.take(ofd);
    await a.flush(1, 10n);
    await expect(b.take(lock(1, 1n, 'read', 0, 0))).rejects.toEqual(code('EAGAIN'));
    await a.release(1, 7n);
    await b.take(lock(1, 1n, 'read', 0, 0));
  });

  it("RELEASE of one handle leaves a process's lock that was taken through another as well", async () => {
    const { a, b } = await started();
    await a.take(lock(1, 10n, 'write', 0, 9, { handle: 1n }));
    await a.take(lock(1, 10n, 'write', 10, 19, { handle: 2n }));
    await a.release(1, 1n);
    await expect(b.take(lock(1, 50n, 'write', 0, 0))).rejects.toEqual(code('EAGAIN'));
  });

  it('flock and fcntl locks do not see each other', async () => {
    const { a, b } = await started();
    await a.take(flock(1, 1n, 'write'));
    await b.take(lock(1, 1n, 'write'));
  });

  it('F_GETLK names the first conflicting range, its kind and its process', async () => {
    const { a, b } = await started();
    await a.take(lock(1, 10n, 'read', 20, 29, { pid: 120 }));
    await a.take(lock(1, 11n, 'write', 5, 9, { pid: 111 }));
    expect(await b.test(lock(1, 1n, 'write', 0, 100))).toEqual({
      kind: 'write',
      range: { start: 5, end: 9 },
      pid: 111,
    });
    expect(await b.test(lock(1, 1n, 'write', 10, 100))).toMatchObject({ kind: 'read', pid: 120 });
    expect(await b.test(lock(1, 1n, 'read', 10, 100))).toBeUndefined();
    expect(await a.test(lock(1, 11n, 'write', 0, 19))).toBeUndefined();
  });

  it('refuses what is no byte range', async () => {
    const { a } = await started();
    for (const [start, end] of [
      [5, 4],
      [-1, 4],
      [0.5, 4],
      [0, 2 ** 60],
    ] as const) {
      await expect(a.take(lock(1, 1n, 'read', start, end))).rejects.toEqual(code('EINVAL'));
    }
  });
});

describe('waiting', () => {
  it('1000 waiters of two sessions get an exclusive lock in order of arrival', async () => {
    const { service, a, b } = await started();
    await a.take(lock(1, 0n, 'write'));
    const order: number[] = [];
    const waits = Array.from({ length: 1000 }, (_, n) => {
      const who = n % 2 === 0 ? a : b;
      const request = lock(1, BigInt(n + 1), 'write');
      return who.wait(request).then(() => {
        order.push(n);
        return who.drop(request);
      });
    });
    expect(service.locks.stats().waiting).toBe(1000);
    await a.drop(lock(1, 0n, 'write'));
    await Promise.all(waits);
    expect(order).toEqual(Array.from({ length: 1000 }, (_, n) => n));
    expect(service.locks.stats()).toMatchObject({ waiting: 0, inodes: 0 });
  });

  it('a stream of readers does not starve a writer, and readers behind it go together', async () => {
    const { a } = await started();
    const order: string[] = [];
    await a.take(lock(1, 1n, 'read'));
    const writer = a.wait(lock(1, 2n, 'write')).then(() => order.push('writer'));
    const readers = [3n, 4n, 5n].map((owner) =>
      a.wait(lock(1, owner, 'read')).then(() => order.push('reader')),
    );
    await a.drop(lock(1, 1n, 'read'));
    await writer;
    expect(order).toEqual(['writer']);
    await a.drop(lock(1, 2n, 'write'));
    await Promise.all(readers);
    expect(order).toEqual(['writer', 'reader', 'reader', 'reader']);
  });

  it('an owner that holds a lock may pass the queue: waiting behind it could wait for itself', async () => {
    const { a } = await started();
    await a.take(lock(1, 1n, 'read', 0, 9));
    const writer = a.wait(lock(1, 2n, 'write', 0, 19));
    await a.wait(lock(1, 1n, 'read', 10, 19));
    await a.flush(1, 1n);
    await writer;
  });

  it('a queued downgrade that is granted lets in whoever waited for it, also ahead of it', async () => {
    const { a } = await started();
    await a.take(lock(1, 1n, 'write', 0, 1));
    await a.take(lock(1, 2n, 'write', 5, 5));
    const reader = a.wait(lock(1, 3n, 'read', 0, 0));
    const downgrade = a.wait(lock(1, 1n, 'read', 0, 5));
    await a.flush(1, 2n);
    await downgrade;
    await reader;
  });

  it('is interrupted by its signal with EINTR, and lets those behind it go', async () => {
    const { service, a } = await started();
    await a.take(lock(1, 1n, 'read'));
    const controller = new AbortController();
    const writer = a.wait(lock(1, 2n, 'write'), controller.signal);
    const reader = a.wait(lock(1, 3n, 'read'));
    controller.abort();
    await expect(writer).rejects.toEqual(code('EINTR'));
    await reader;
    expect(service.locks.stats()).toMatchObject({ waiting: 0, interrupted: 1 });
    await expect(a.wait(lock(1, 4n, 'write'), AbortSignal.abort())).rejects.toEqual(code('EINTR'));
    await a.flush(1, 1n);
    await a.flush(1, 3n);
    await a.take(lock(1, 2n, 'write'));
  });

  it('a thousand interrupted waiters leave nothing behind', async () => {
    const { service, a } = await started();
    await a.take(lock(1, 1n, 'write'));
    const controller = new AbortController();
    setMaxListeners(1000, controller.signal);
    const waits = Array.from({ length: 1000 }, (_, n) =>
      a.wait(lock(1, BigInt(n + 2), 'write'), controller.signal),
    );
    const outcomes = Promise.allSettled(waits);
    controller.abort();
    for (const outcome of await outcomes) expect(outcome).toMatchObject({ reason: { code: 'EINTR' } });
    await a.flush(1, 1n);
    expect(service.locks.stats()).toMatchObject({ waiting: 0, inodes: 0 });
  });

  it('finds a cycle through three owners and two inodes', async () => {
    const { a, b } = await started();
    await a.take(lock(1, 1n, 'write', 0, 0));
    await b.take(lock(1, 2n, 'write', 1, 1));
    await a.take(lock(2, 3n, 'write', 0, 0));
    const first = a.wait(lock(1, 1n, 'write', 1, 1));
    const second = b.wait(lock(2, 2n, 'read', 0, 0));
    await expect(a.wait(lock(1, 3n, 'read', 0, 0))).rejects.toEqual(code('EDEADLK'));
    await a.flush(2, 3n);
    await second;
    await b.flush(1, 2n);
    await first;
  });

  it('finds a cycle that is closed by a grant to an owner with several threads', async () => {
    const { a } = await started();
    await a.take(lock(1, 1n, 'write'));
    await a.take(lock(2, 2n, 'write'));
    const thread1 = a.wait(lock(1, 3n, 'write'));
    const waiter = a.wait(lock(1, 2n, 'write'));
    const thread2 = a.wait(lock(2, 3n, 'write'));
    await a.flush(1, 1n); // Owner 3 gets inode 1; owner 2 now waits for 3, which waits for 2.
    await thread1;
    await expect(waiter).rejects.toEqual(code('EDEADLK'));
    await a.flush(2, 2n);
    await thread2;
  });

  it('whoever stood behind a waiter that is refused for a cycle goes', async () => {
    const { a } = await started();
    await a.take(lock(1, 1n, 'read'));
    await a.take(lock(2, 2n, 'write'));
    const thread1 = a.wait(lock(2, 3n, 'write'));
    const writer = a.wait(lock(1, 2n, 'write'));
    const reader = a.wait(lock(1, 4n, 'read')); // Behind the writer alone.
    await a.take(lock(1, 3n, 'read')); // Owner 2 waits for 3 too now, which waits for 2.
    await expect(writer).rejects.toEqual(code('EDEADLK'));
    await reader;
    await a.flush(2, 2n);
    await thread1;
  });

  it('a refused flock conversion has lost the old lock, as in Linux', async () => {
    const { a, b } = await started();
    await a.take(flock(1, 1n, 'read'));
    await b.take(flock(1, 2n, 'read'));
    await expect(a.take(flock(1, 1n, 'write'))).rejects.toEqual(code('EAGAIN'));
    await b.take(flock(1, 2n, 'write'));
  });
});

describe('the end of a session', () => {
  it('ends its waits with ESTALE and gives its locks to those who wait', async () => {
    const { service, a, b } = await started();
    await a.take(lock(1, 1n, 'write'));
    const waiting = b.wait(lock(1, 5n, 'write'));
    await b.take(lock(2, 6n, 'write'));
    const stale = a.wait(lock(2, 1n, 'write'));
    const outcome = expect(stale).rejects.toEqual(code('ESTALE'));
    await open(service, 'a');
    await outcome;
    await waiting;
  });

  it('hands locks over only after the old session is fenced', async () => {
    const fencedFirst: boolean[] = [];
    const { service, a, b } = await started();
    await a.take(lock(1, 1n, 'write'));
    const { id, epoch } = a.session.identity;
    const waiting = b.wait(lock(1, 5n, 'write')).then(() => {
      fencedFirst.push(!service.sessions.isLive(id, epoch) && a.session.leaseRemainingMs() === 0);
    });
    await open(service, 'a');
    await waiting;
    expect(fencedFirst).toEqual([true]);
  });
});

describe('a restarted service', () => {
  it.each([1, 3])('knows the locks of sessions that still live, on %i nodes', async (nodes) => {
    const { service, a, b } = await started({ nodes, coresident: false });
    await a.take(lock(1, 10n, 'write', 0, 9, { handle: 1n, pid: 77 }));
    await a.take(lock(1, 10n, 'read', 4, 5, { handle: 1n, pid: 77 }));
    await a.take(lock(4098, 11n, 'read', 0, 9, { handle: 2n }));
    await a.take(flock(4099, 3n, 'write'));
    await b.take(lock(2, 12n, 'write', 0, 9));
    await b.drop(lock(2, 12n, 'write', 3, 5));
    await b.take(lock(3, 13n, 'write'));
    await b.flush(3, 13n);
    const engines = service.engines.map((engine) => engine.crash({ keep: 'all' }));

    const again = await startService({ engines, coresident: false });
    const c = client(await open(again, 'c'));
    expect(await c.test(lock(1, 1n, 'write'))).toEqual({
      kind: 'write',
      range: { start: 0, end: 3 },
      pid: 77,
    });
    expect(await c.test(lock(1, 1n, 'write', 4, 5))).toMatchObject({ kind: 'read' });
    await c.take(lock(4098, 1n, 'read'));
    await expect(c.take(lock(4098, 1n, 'write', 0, 0))).rejects.toEqual(code('EAGAIN'));
    await expect(c.take(flock(4099, 1n, 'read'))).rejects.toEqual(code('EAGAIN'));
    await c.take(lock(2, 1n, 'write', 3, 5));
    await expect(c.take(lock(2, 1n, 'write', 2, 2))).rejects.toEqual(code('EAGAIN'));
    await c.take(lock(3, 1n, 'write'));

    await open(again, 'a'); // supersedes: everything of the old one goes, on record too
    await c.take(lock(1, 1n, 'write'));
    await c.take(flock(4099, 1n, 'read'));
    const keys = new VolumeKeys(1);
    for (const engine of again.engines) {
      expect(await engine.transact((txn) => txn.range(keys.sessionLocks(a.session.identity.id)))).toEqual([]);
    }
  });

  it('co-resident locks cost no transaction and do not outlive the process', async () => {
    const { service, a } = await started();
    const before = service.engines[0]!.stats().commits;
    for (let n = 0; n < 100; n++) await a.take(lock(n, 1n, 'write'));
    expect(service.locks.stats().recordWrites).toBe(0);
    expect(service.engines[0]!.stats().commits).toBe(before);
    const again = await startService({
      engines: service.engines.map((engine) => engine.crash({ keep: 'all' })),
    });
    await client(await open(again, 'b')).take(lock(1, 9n, 'write'));
  });
});
