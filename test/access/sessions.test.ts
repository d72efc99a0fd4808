// Sessions end to end, through the access node: identifiers, epochs, superseding, leases.
import { describe, expect, it } from 'vitest';
import { SessionGate } from '../../src/access/gate.js';
import { MemorySessionCache } from '../../src/access/session-cache.js';
import { sessionKey } from '../../src/metadata/keys.js';
import { SessionState } from '../../src/metadata/session-fence.js';
import { decodeSessionRecord, sessionShard, sessionSlot } from '../../src/metadata/session-record.js';
import { ManualClock } from '../../src/telemetry/clock.js';
import { callerOf, code, LEASE_MS, lock, ROOT, type Service, startService } from './service.js';

const open = (service: Service, name: string) => service.node.openSession(ROOT, 'acme/data', name);

describe.each([1, 3])('sessions on %i metadata nodes', (nodes) => {
  it('takes the identifier from the place of the record', async () => {
    const service = await startService({ nodes });
    const { identity } = await open(service, 'host-a');
    const shard = sessionShard(identity.id);
    const value = await service.engines[shard % nodes]!.transact((txn) => txn.get(sessionKey(identity.id)));
    expect(decodeSessionRecord(identity.id, value!)).toMatchObject({ ...identity, state: SessionState.Live });
    expect(sessionSlot(identity.id)).toBe(1);
    expect(identity.id % 4096).toBe(shard);
  });

  it('keeps the fence on every node, before the client gets its session', async () => {
    const service = await startService({ nodes });
    const { identity } = await open(service, 'host-a');
    for (const engine of service.engines) {
      const value = await engine.transact((txn) => txn.get(sessionKey(identity.id)));
      expect(decodeSessionRecord(identity.id, value!)).toMatchObject({ epoch: 1, state: SessionState.Live });
    }
  });

  it('never reuses an epoch of a slot, also after close and after a restart', async () => {
    const seen = new Set<string>();
    let engines: Service['engines'] | undefined;
    for (let start = 0; start < 3; start++) {
      const service: Service = await startService(engines === undefined ? { nodes } : { engines });
      for (let turn = 0; turn < 5; turn++) {
        const session = await open(service, 'host-a');
        const life = `${session.identity.id}:${session.identity.epoch}`;
        expect(seen).not.toContain(life);
        seen.add(life);
        if (turn % 2 === 0) await session[Symbol.asyncDispose]();
      }
      engines = service.engines.map((engine) => engine.crash({ keep: 'synced' }));
    }
  });

  it('supersedes the old session of a client at once: fenced, cleaned up, then the new one', async () => {
    const service = await startService({ nodes });
    const old = await open(service, 'host-a');
    const reasons: string[] = [];
    old.onFenced((reason) => reasons.push(reason));
    const caller = callerOf(old.identity);
    await old.locks.acquire(caller, lock(7, 1n, 'write'));
    const next = await open(service, 'host-a');
    expect(reasons).toEqual(['superseded']);
    expect(service.ended).toEqual([{ session: old.identity, reason: 'superseded' }]);
    expect(old.leaseRemainingMs()).toBe(0);
    await expect(old.namespace.getAttributes(caller, 1)).rejects.toEqual(code('ESTALE'));
    await expect(old.locks.acquire(caller, lock(8, 1n, 'write'))).rejects.toEqual(code('ESTALE'));
    await expect(old.namespace.sync()).rejects.toThrow(/has ended: superseded/);
    await next.locks.acquire(callerOf(next.identity), lock(7, 2n, 'write'));
  });

  it('fences on every node before anything is cleaned up', async () => {
    const states: SessionState[] = [];
    const service: Service = await startService({
      nodes,
      beforeEnded: async (session) => {
        for (const engine of service.engines) {
          const value = await engine.transact((txn) => txn.get(sessionKey(session.id)));
          states.push(decodeSessionRecord(session.id, value!).state);
        }
      },
    });
    await open(service, 'host-a');
    await open(service, 'host-a');
    expect(states).toEqual(Array(nodes).fill(SessionState.Ending));
  });

  it('goes on with a half-ended session after a crash, and after a listener that failed', async () => {
    let failures = 2;
    const service = await startService({
      nodes,
      beforeEnded: async () => {
        if (failures-- > 0) throw new Error('clean-up failed');
      },
    });
    const old = await open(service, 'host-a');
    await expect(open(service, 'host-a')).rejects.toThrow('clean-up failed');
    await service.sessions.sweep();
    expect(service.ended).toEqual([]);
    const restarted = await startService({
      engines: service.engines.map((engine) => engine.crash({ keep: 'all' })),
    });
    expect(restarted.ended.map(({ session }) => session)).toEqual([old.identity]);
    expect((await open(restarted, 'host-a')).identity.epoch).toBe(2);
  });

  it('keeps a session alive by renewing, and ends it when renewals stop', async () => {
    const service = await startService({ nodes });
    const session = await open(service, 'host-a');
    await service.pass(10 * LEASE_MS);
    expect(session.leaseRemainingMs()).toBeGreaterThan(LEASE_MS / 2);
    await service.pass(LEASE_MS, { renew: false });
    expect(service.ended).toEqual([{ session: session.identity, reason: 'expired' }]);
    await expect(session.namespace.statistics(callerOf(session.identity))).rejects.toEqual(code('ESTALE'));
  });
});

describe('leases', () => {
  it('a client stops before its service does', async () => {
    const service = await startService();
    const session = await open(service, 'host-a');
    const clientLeaseMs = session.leaseRemainingMs();
    await service.clock.advance(clientLeaseMs);
    expect(session.leaseRemainingMs()).toBe(0);
    expect(service.sessions.list()[0]!.leaseRemainingMs).toBeGreaterThan(LEASE_MS / 10);
  });

  it('counts a renewed lease from before the request, however long the answer took', async () => {
    const clock = new ManualClock();
    const answerMs = LEASE_MS / 2;
    const gate = new SessionGate({
      identity: { id: 1, epoch: 1, volume: 'acme/data', clientName: 'host-a' },
      principal: { kind: 'peer', uid: 0, gid: 0, pid: 1 },
      cache: new MemorySessionCache(),
      clock,
      renew: async () => {
        await clock.advance(answerMs); // The service had granted the lease before this.
        return LEASE_MS;
      },
    });
    await gate.renew();
    expect(gate.remainingMs()).toBeGreaterThan(0);
    expect(gate.remainingMs()).toBeLessThan(LEASE_MS - answerMs);
  });

  it('a lease that ran out while nothing was given away is renewed by the next request', async () => {
    const service = await startService();
    const session = await open(service, 'host-a');
    await service.clock.advance(LEASE_MS * 3);
    await session.namespace.getAttributes(callerOf(session.identity), 1);
    expect(session.leaseRemainingMs()).toBeGreaterThan(0);
    expect(service.node.stats().roundTripsRenew).toBe(1);
  });

  it('nobody expires because the service itself was stopped', async () => {
    const service = await startService();
    const session = await open(service, 'host-a');
    await service.pass(LEASE_MS / 2);
    await service.clock.advance(LEASE_MS * 50);
    await service.sessions.sweep();
    expect(service.ended).toEqual([]);
    await session.namespace.getAttributes(callerOf(session.identity), 1);
  });

  it('does not look at the wall clock', async () => {
    const service = await startService();
    const session = await open(service, 'host-a');
    const realNow = Date.now;
    try {
      for (const jumpMs of [1e12, -1e12]) {
        Date.now = () => realNow() + jumpMs;
        await service.pass(LEASE_MS / 4);
        expect(session.leaseRemainingMs()).toBeGreaterThan(LEASE_MS / 2);
      }
    } finally {
      Date.now = realNow;
    }
    expect(service.ended).toEqual([]);
  });

  it('live sessions get a whole lease after a restart of the service', async () => {
    const service = await startService();
    const { identity } = await open(service, 'host-a');
    const restarted = await startService({
      engines: service.engines.map((engine) => engine.crash({ keep: 'all' })),
    });
    expect(restarted.sessions.isLive(identity.id, identity.epoch)).toBe(true);
    expect(restarted.sessions.list()[0]!.leaseRemainingMs).toBe(LEASE_MS);
    await restarted.pass(LEASE_MS, { renew: false });
    expect(restarted.ended).toEqual([{ session: identity, reason: 'expired' }]);
  });
});

describe('many clients', () => {
  it('the same name opened 50 times at once leaves one live session', async () => {
    const service = await startService({ nodes: 3 });
    const opened = await Promise.allSettled(Array.from({ length: 50 }, () => open(service, 'host-a')));
    const sessions = opened.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
    const live = sessions.filter((session) => session.leaseRemainingMs() > 0);
    expect(live).toHaveLength(1);
    expect(service.sessions.list()).toHaveLength(1);
    for (const result of opened)
      if (result.status === 'rejected') expect(result.reason).toEqual(code('EAGAIN'));
  });

  it('different names have different identifiers, and slots are used again', async () => {
    const service = await startService();
    for (let round = 1; round <= 3; round++) {
      const sessions = await Promise.all(Array.from({ length: 200 }, (_, n) => open(service, `host-${n}`)));
      expect(new Set(sessions.map((session) => session.identity.id)).size).toBe(200);
      expect(Math.max(...sessions.map((session) => session.identity.epoch))).toBe(round);
      await Promise.all(sessions.map((session) => session[Symbol.asyncDispose]()));
    }
    expect(service.sessions.list()).toEqual([]);
  });

  it('refuses a client name that is empty or too long', async () => {
    const service = await startService();
    await expect(open(service, '')).rejects.toEqual(code('EINVAL'));
    await expect(open(service, 'x'.repeat(256))).rejects.toEqual(code('EINVAL'));
  });
});
