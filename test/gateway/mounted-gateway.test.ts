// What a mounted volume does for whoever asks for long work on it, and goes away.
import { expect, test } from 'vitest';
import type { GatewayParts } from '../../src/gateway/mount.js';
import type { MountOptions } from '../../src/gateway/mount-contract.js';
import { MountedGateway } from '../../src/gateway/mounted-gateway.js';
import type { FuseTransport } from '../../src/gateway/transport.js';

const STEPS = 64;

/** The service's long work tells its progress step by step. */
function begin() {
  const world = { steps: 0 };
  const work = async (progress: (done: number, total: number) => void) => {
    for (let step = 1; step <= STEPS; step += 1) {
      world.steps = step;
      await Promise.resolve();
      progress(step, STEPS);
    }
    return { problems: [] };
  };
  const parts = {
    session: { onFenced: () => {} },
    service: { scrub: work, fsck: (_volume: string, progress: never) => work(progress) },
    condemned: { settle: async () => {} },
    publisher: { paused: (checking: () => Promise<unknown>) => checking() },
    cache: { check: () => [] },
  } as unknown as GatewayParts;
  const transport = { ended: new Promise(() => {}) } as unknown as FuseTransport;
  const options = { mountpoint: '/mnt', volume: 'v' } as unknown as MountOptions;
  return { world, gateway: new MountedGateway(options, parts, transport) };
}

test.each(['scrub', 'fsck'] as const)('a %s ends with its caller', async (job) => {
  const { world, gateway } = begin();
  const caller = new AbortController();
  const onProgress = ({ done }: { done: number }) => {
    if (done === 3) caller.abort(new Error('gone'));
  };
  await expect(gateway[job](onProgress, caller.signal)).rejects.toThrow('gone');
  expect(world.steps).toBe(4);
});
