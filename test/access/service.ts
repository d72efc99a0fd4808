// A metadata service with its access node, in memory, on clocks that the test turns.
import { expect } from 'vitest';
import { LocalAccessNode } from '../../src/access/access-node.js';
import type { Volume } from '../../src/access/authority.js';
import type { SessionCache } from '../../src/access/session-cache.js';
import { TokenTable } from '../../src/access/tokens.js';
import { MemoryEngine } from '../../src/kv/memory-engine.js';
import type { Caller, Namespace } from '../../src/metadata/contract.js';
import { VolumeKeys } from '../../src/metadata/keys.js';
import type { LockRequest } from '../../src/metadata/lock-contract.js';
import { LockService } from '../../src/metadata/locks.js';
import type { SessionIdentity } from '../../src/metadata/session-record.js';
import { type EndReason, SessionStore } from '../../src/metadata/sessions.js';
import { ManualClock } from '../../src/telemetry/clock.js';

export const LEASE_MS = 60_000;
export const ROOT = { kind: 'peer', uid: 0, gid: 0, pid: 1 } as const;

/** Answers every call with its own name and arguments. */
export function echoNamespace(calls: Array<{ method: string; args: unknown[] }> = []): Namespace {
  return new Proxy({} as Namespace, {
    get:
      (_, method: string) =>
      async (...args: unknown[]) => {
        calls.push({ method, args });
        return { method, args };
      },
  });
}

export interface Service {
  readonly clock: ManualClock;
  readonly engines: MemoryEngine[];
  readonly sessions: SessionStore;
  readonly locks: LockService;
  readonly tokens: TokenTable;
  readonly node: LocalAccessNode;
  readonly ended: Array<{ session: SessionIdentity; reason: EndReason }>;
  readonly calls: Array<{ method: string; args: unknown[] }>;
  /** Lets time pass as a running service sees it: sweeping, and (unless told otherwise) renewing. */
  pass(ms: number, options?: { renew?: boolean }): Promise<void>;
}

export interface ServiceOptions {
  readonly nodes?: number;
  readonly engines?: MemoryEngine[];
  readonly coresident?: boolean;
  readonly sessionCache?: SessionCache;
  readonly beforeEnded?: (session: SessionIdentity) => Promise<void>;
}

export async function startService(options: ServiceOptions = {}): Promise<Service> {
  const clock = new ManualClock(1_000_000);
  const engines = options.engines ?? Array.from({ length: options.nodes ?? 1 }, () => new MemoryEngine());
  const engineOf = (shard: number) => engines[shard % engines.length]!;
  const sessions = new SessionStore({ engines, engineOf }, { clock, leaseMs: LEASE_MS });
  const locks = new LockService({ keys: new VolumeKeys(1), engines, engineOf, sessions });
  const tokens = new TokenTable(engines[0]!);
  const calls: Service['calls'] = [];
  const volume: Volume = {
    name: 'acme/data',
    ownerUid: 1000,
    allowedUids: [1001],
    namespace: echoNamespace(calls),
    locks,
  };
  const node = new LocalAccessNode({
    sessions,
    volumes: { find: async (name) => (name === volume.name ? volume : undefined) },
    tokens,
    clock,
    coresident: options.coresident ?? true,
    ...(options.sessionCache === undefined ? {} : { sessionCache: options.sessionCache }),
  });
  const ended: Service['ended'] = [];
  sessions.onEnded(async (session, reason) => {
    await options.beforeEnded?.(session);
    await locks.endSession(session.id, reason);
    ended.push({ session, reason });
  });
  await locks.recover(await sessions.recover());
  const pass: Service['pass'] = async (ms, { renew = true } = {}) => {
    for (let left = ms; left > 0; left -= LEASE_MS / 4) {
      await clock.advance(Math.min(left, LEASE_MS / 4));
      if (renew) await node.renewDue(LEASE_MS);
      await sessions.sweep();
    }
  };
  return { clock, engines, sessions, locks, tokens, node, ended, calls, pass };
}

export const toEnd = Number.MAX_SAFE_INTEGER;

export function lock(
  ino: number,
  owner: bigint,
  kind: 'read' | 'write',
  start = 0,
  end = toEnd,
  more: Partial<LockRequest> = {},
): LockRequest {
  return {
    ino,
    owner,
    handle: owner,
    kind,
    range: { start, end },
    flavour: 'posix',
    pid: Number(owner),
    ...more,
  };
}

export function callerOf(identity: { id: number; epoch: number }): Caller {
  return { session: identity.id, epoch: identity.epoch, uid: 0, gid: 0 };
}

export const code = (expected: string): { code: string } => expect.objectContaining({ code: expected });
