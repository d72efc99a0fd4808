// What is served without asking the metadata service, who is let in, and what the gate costs.
import { describe, expect, it } from 'vitest';
import { LocalAccessNode } from '../../src/access/access-node.js';
import { SessionGate } from '../../src/access/gate.js';
import { GuardedNamespace } from '../../src/access/guarded-namespace.js';
import { MemoryLockStateCache } from '../../src/access/lock-cache.js';
import { MemorySessionCache } from '../../src/access/session-cache.js';
import type { Namespace } from '../../src/metadata/contract.js';
import { systemClock } from '../../src/telemetry/clock.js';
import { callerOf, code, LEASE_MS, lock, ROOT, type Service, startService } from './service.js';

const open = (service: Service, name: string) => service.node.openSession(ROOT, 'acme/data', name);

const trips = (service: Service) => {
  const stats = service.node.stats();
  return { open: stats.roundTripsOpen, renew: stats.roundTripsRenew, lock: stats.roundTripsLock };
};

describe('the session cache', () => {
  it('opening a session is one round trip, its requests are none', async () => {
    const service = await startService();
    const session = await open(service, 'a');
    const caller = callerOf(session.identity);
    for (let n = 0; n < 1000; n++) await session.namespace.getAttributes(caller, n);
    expect(service.calls).toHaveLength(1000);
    expect(trips(service)).toEqual({ open: 1, renew: 0, lock: 0 });
  });

  it('asks once when the cache has lost the session, also for many requests at once', async () => {
    const cache = new MemorySessionCache(1);
    const service = await startService({ sessionCache: cache });
    const a = await open(service, 'a');
    await open(service, 'b');
    expect(cache.get(a.identity.id)).toBeUndefined();
    await Promise.all(
      Array.from({ length: 100 }, (_, n) => a.namespace.getAttributes(callerOf(a.identity), n)),
    );
    expect(trips(service)).toMatchObject({ renew: 1 });
  });

  it('is not used beyond the lease', async () => {
    const service = await startService();
    const session = await open(service, 'a');
    await service.clock.advance(LEASE_MS);
    await session.namespace.getAttributes(callerOf(session.identity), 1);
    expect(trips(service)).toMatchObject({ renew: 1 });
  });

  it('refuses a caller of another session or another epoch before the namespace sees it', async () => {
    const service = await startService();
    const session = await open(service, 'a');
    const caller = callerOf(session.identity);
    for (const forged of [
      { ...caller, session: caller.session + 1 },
      { ...caller, epoch: caller.epoch + 1 },
    ]) {
      await expect(session.namespace.getAttributes(forged, 1)).rejects.toEqual(code('ESTALE'));
      await expect(session.locks.acquire(forged, lock(1, 1n, 'read'))).rejects.toEqual(code('ESTALE'));
    }
    expect(service.calls).toEqual([]);
  });

  it('passes every method of the namespace on, unchanged, and closes every one once fenced', async () => {
    const service = await startService();
    const session = await open(service, 'a');
    const caller = callerOf(session.identity);
    const withoutCaller = new Set(['takeReleased', 'confirmReleased', 'sync']);
    const methods = Object.getOwnPropertyNames(GuardedNamespace.prototype).filter(
      (name) => name !== 'constructor',
    );
    expect(methods).toHaveLength(27);
    const call = (method: string) => {
      const args = withoutCaller.has(method) ? ['x'] : [caller, 'x', 'y', 'z'];
      const bound = session.namespace[method as keyof Namespace] as (...args: unknown[]) => Promise<unknown>;
      return bound.apply(session.namespace, args);
    };
    for (const method of methods) {
      await call(method);
      const passed = service.calls.at(-1)!;
      expect(passed.method).toBe(method);
      if (!withoutCaller.has(method)) expect(passed.args[0]).toBe(caller);
    }
    await session[Symbol.asyncDispose]();
    for (const method of methods) await expect(call(method), method).rejects.toEqual(code('ESTALE'));
    expect(service.calls).toHaveLength(methods.length);
  });
});

describe('the lock-state cache', () => {
  it('closing and unlocking without a lock needs no round trip, with one it does', async () => {
    const service = await startService();
    const session = await open(service, 'a');
    const caller = callerOf(session.identity);
    await session.locks.releaseOwner(caller, 1, 1n);
    await session.locks.releaseHandle(caller, 1, 1n);
    await session.locks.release(caller, lock(1, 1n, 'read'));
    expect(trips(service).lock).toBe(0);
    await session.locks.acquire(caller, lock(1, 1n, 'read'));
    await session.locks.releaseOwner(caller, 2, 1n);
    await session.locks.releaseOwner(caller, 1, 1n);
    expect(trips(service).lock).toBe(2);
    await session.locks.releaseHandle(caller, 1, 1n);
    expect(trips(service).lock).toBe(2);
  });

  it('a file that nobody locks is tested without a round trip until somebody locks it', async () => {
    const service = await startService();
    const [a, b] = await Promise.all([open(service, 'a'), open(service, 'b')]);
    const test = () => a.locks.test(callerOf(a.identity), lock(1, 1n, 'write'));
    for (let n = 0; n < 10; n++) expect(await test()).toBeUndefined();
    expect(trips(service).lock).toBe(1);
    await b.locks.acquire(callerOf(b.identity), lock(1, 7n, 'read'));
    expect(await test()).toMatchObject({ kind: 'read' });
  });

  it('a lock taken while the answer "nobody" is under way is not missed afterwards', async () => {
    const service = await startService();
    const [a, b] = await Promise.all([open(service, 'a'), open(service, 'b')]);
    for (let ino = 1; ino <= 100; ino++) {
      const testing = a.locks.test(callerOf(a.identity), lock(ino, 1n, 'write'));
      for (let turn = 0; turn < ino % 5; turn++) await Promise.resolve();
      await b.locks.acquire(callerOf(b.identity), lock(ino, 7n, 'write'));
      await testing;
      expect(await a.locks.test(callerOf(a.identity), lock(ino, 1n, 'write'))).toBeDefined();
    }
  });

  it('concurrent requests never leave an indicator that hides a lock', async () => {
    const service = await startService();
    const session = await open(service, 'a');
    const caller = callerOf(session.identity);
    await Promise.all([
      session.locks.acquire(caller, lock(1, 1n, 'write', 0, 0)),
      session.locks.release(caller, lock(1, 1n, 'write', 0, 0)),
      session.locks.acquire(caller, lock(1, 1n, 'write', 5, 5)),
    ]);
    await session.locks.releaseOwner(caller, 1, 1n);
    expect(service.locks.stats().inodes).toBe(0);
  });

  it('knows less, never wrongly, when it is full', () => {
    const cache = new MemoryLockStateCache(2);
    cache.begin(1, true);
    expect(cache.get(1, 5)).toBe('none');
    for (const ino of [1, 2, 3]) cache.set(1, ino, 'exclusive');
    expect([1, 2, 3, 5].map((ino) => cache.get(1, ino))).toEqual([
      'unknown',
      'exclusive',
      'exclusive',
      'unknown',
    ]);
    cache.set(1, 3, 'none');
    expect(cache.get(1, 3)).toBe('none');
    expect(cache.get(2, 1)).toBe('unknown');
  });
});

describe('authentication and authorisation', () => {
  const peer = (uid: number) => ({ kind: 'peer', uid, gid: uid, pid: 1 }) as const;
  const token = (text: string) => ({ kind: 'token', token: text }) as const;

  it('admits root, the owner and the users it names, over a local socket', async () => {
    const { node } = await startService();
    for (const uid of [0, 1000, 1001]) await node.openSession(peer(uid), 'acme/data', `user-${uid}`);
    for (const uid of [1002, 65534, -1, 0xffff_ffff, Number.NaN]) {
      await expect(node.openSession(peer(uid), 'acme/data', 'x')).rejects.toEqual(code('EACCES'));
    }
    await expect(node.openSession(peer(0), 'acme/none', 'x')).rejects.toEqual(code('ENOENT'));
    expect(node.stats()).toMatchObject({ refusedAuthentication: 3, refusedAuthorisation: 3 });
  });

  it('admits a token for the volumes it names, and tells others nothing', async () => {
    const { node, tokens } = await startService();
    const [one, all, foreign] = await Promise.all([
      tokens.issue('acme', ['acme/data']),
      tokens.issue('acme', ['*']),
      tokens.issue('evil', ['*']),
    ]);
    await node.openSession(token(one), 'acme/data', 'x');
    await node.openSession(token(all), 'acme/data', 'y');
    await expect(node.openSession(token(all), 'acme/none', 'y')).rejects.toEqual(code('ENOENT'));
    for (const name of ['acme/data', 'acme/none']) {
      await expect(node.openSession(token(foreign), name, 'z')).rejects.toEqual(code('EACCES'));
    }
    await expect(node.openSession(token(one), 'acme/none', 'x')).rejects.toEqual(code('EACCES'));
  });

  it('refuses tokens that are malformed, unknown, altered or revoked', async () => {
    const { node, tokens } = await startService();
    const good = await tokens.issue('acme', ['*']);
    const [grant] = await tokens.list();
    const altered = good.slice(0, -5) + (good.at(-5) === 'A' ? 'B' : 'A') + good.slice(-4);
    const unknown = good.replace(grant!.id, '0'.repeat(16));
    for (const bad of ['', 'penstock_', 'x', altered, unknown, `${good}x`]) {
      await expect(node.openSession(token(bad), 'acme/data', 'x')).rejects.toEqual(code('EACCES'));
    }
    expect(await tokens.revoke(grant!.id)).toBe(true);
    expect(await tokens.revoke(grant!.id)).toBe(false);
    await expect(node.openSession(token(good), 'acme/data', 'x')).rejects.toEqual(code('EACCES'));
  });

  it('keeps no secret of a token', async () => {
    const { tokens, engines } = await startService();
    const secret = (await tokens.issue('acme', ['*'])).split('_').slice(2).join('_');
    const everything = await engines[0]!.transact((txn) =>
      txn.range({ start: Buffer.from([0]), end: Buffer.from([0xff]) }),
    );
    const stored = Buffer.concat(everything.flatMap(({ key, value }) => [key, value]));
    expect(stored.includes(secret)).toBe(false);
    expect(stored.includes(Buffer.from(secret, 'base64url'))).toBe(false);
  });

  it('does nothing at the service before both', async () => {
    const { node } = await startService();
    await expect(node.openSession(token('x'), 'acme/data', 'x')).rejects.toEqual(code('EACCES'));
    expect(node.stats().roundTripsOpen).toBe(0);
    expect(node).toBeInstanceOf(LocalAccessNode);
  });
});

describe('the cost of the gate', () => {
  it('adds less than a microsecond to a request', async () => {
    const answer = Promise.resolve();
    const inner = { getAttributes: () => answer } as unknown as Namespace;
    const identity = { id: 4096, epoch: 1, volume: 'v', clientName: 'c' };
    const gate = new SessionGate({
      identity,
      principal: { kind: 'peer', uid: 0, gid: 0, pid: 1 },
      cache: new MemorySessionCache(),
      clock: systemClock,
      renew: async () => LEASE_MS,
    });
    gate.granted(systemClock.monotonicMs(), LEASE_MS);
    const guarded = new GuardedNamespace(gate, inner);
    const caller = callerOf(identity);
    // The best of short rounds: whatever else the machine does makes a round longer, never shorter.
    const perCallNs = (namespace: Namespace): number => {
      const rounds = Array.from({ length: 90 }, () => {
        const began = process.hrtime.bigint();
        for (let n = 0; n < 2000; n++) void namespace.getAttributes(caller, n);
        return Number(process.hrtime.bigint() - began) / 2000;
      });
      return Math.min(...rounds);
    };
    const addedNs = perCallNs(guarded) - perCallNs(inner);
    console.log(`gate: ${addedNs.toFixed(0)} ns a request`);
    expect(addedNs).toBeLessThan(1000);
  });
});
