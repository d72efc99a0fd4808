// Sessions and the real namespace together: once a client is superseded, no mutation of its old session commits on any
// metadata node, even one that was let through every gate before; what it held is free again.
import { describe, expect, it } from 'vitest';
import { LocalAccessNode } from '../../src/access/access-node.js';
import { TokenTable } from '../../src/access/tokens.js';
import { MemoryEngine } from '../../src/kv/memory-engine.js';
import { LockService } from '../../src/metadata/locks.js';
import { MetadataService } from '../../src/metadata/service.js';
import { SessionStore } from '../../src/metadata/sessions.js';
import { formatStore } from '../../src/metadata/store.js';
import { ManualClock } from '../../src/telemetry/clock.js';
import { callerOf, code, ROOT } from './service.js';

async function startEverything(nodes: number) {
  const engines = Array.from({ length: nodes }, () => new MemoryEngine());
  await formatStore(engines);
  const metadata = await MetadataService.open(engines);
  await metadata.createVolume('home');
  const volume = await metadata.volume('home');
  const engineOf = (shard: number) => engines[metadata.cluster.map.node(shard)]!;
  const sessions = new SessionStore({ engines, engineOf }, { clock: new ManualClock() });
  const locks = new LockService({ keys: volume.keys, engines, engineOf, sessions });
  const entry = { name: 'home', ownerUid: 0, allowedUids: [], namespace: volume, locks };
  const node = new LocalAccessNode({
    sessions,
    volumes: { find: async (name) => (name === 'home' ? entry : undefined) },
    tokens: new TokenTable(engines[0]!),
    clock: new ManualClock(),
  });
  sessions.onEnded(async ({ id }, reason) => {
    await locks.endSession(id, reason);
    await volume.endSession(id);
  });
  return { metadata, volume, node };
}

describe.each([1, 3])('a superseded session on %i metadata nodes', (nodes) => {
  it('cannot change anything, wherever it commits, and leaves nothing behind', async () => {
    const { metadata, volume, node } = await startEverything(nodes);
    const old = await node.openSession(ROOT, 'home', 'client');
    const stale = callerOf(old.identity);
    const directories: number[] = [];
    for (let n = 0; n < 24; n++) {
      const made = await old.namespace.makeDirectory(stale, 1, Buffer.from(`d${n}`), 0o755);
      directories.push(made.ino);
    }
    await old.namespace.makeNode(stale, 1, Buffer.from('orphan'), 0o100644, 0);
    await old.namespace.unlink(stale, 1, Buffer.from('orphan'), () => true);
    expect(await old.namespace.reservePages(stale, 100)).toBe(100);

    const next = await node.openSession(ROOT, 'home', 'client');
    for (const directory of directories) {
      // Straight to the namespace: the gate of the old session is not asked.
      const late = volume.makeNode(stale, directory, Buffer.from('late'), 0o100644, 0);
      await expect(late).rejects.toEqual(code('ESTALE'));
    }
    await expect(volume.reservePages(stale, 1)).rejects.toEqual(code('ESTALE'));
    const fresh = callerOf(next.identity);
    for (const directory of directories) {
      await next.namespace.makeNode(fresh, directory, Buffer.from('new'), 0o100644, 0);
      expect(await next.namespace.readDirectory(fresh, directory, 0n, 10, false)).toHaveLength(1);
    }
    await next[Symbol.asyncDispose]();
    expect((await metadata.fsck('home')).findings).toEqual([]);
  });

  it('a mutation under way while the session ends either commits before its end or not at all', async () => {
    const { volume, node } = await startEverything(nodes);
    for (let round = 0; round < 10; round++) {
      const session = await node.openSession(ROOT, 'home', 'client');
      const caller = callerOf(session.identity);
      const writes = Array.from({ length: 20 }, (_, n) =>
        volume.makeNode(caller, 1, Buffer.from(`r${round}-${n}`), 0o100644, 0).then(
          () => true,
          (error: { code: string }) => {
            expect(error.code).toBe('ESTALE');
            return false;
          },
        ),
      );
      const next = await node.openSession(ROOT, 'home', 'client');
      const reader = callerOf(next.identity);
      const entries = await next.namespace.readDirectory(reader, 1, 0n, 10_000, false);
      const seen = new Set(entries.map(({ name }) => name.toString()));
      for (const [n, committed] of (await Promise.all(writes)).entries()) {
        expect(seen.has(`r${round}-${n}`)).toBe(committed);
      }
    }
  });
});
