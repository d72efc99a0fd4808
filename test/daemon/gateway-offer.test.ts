// What a gateway says of itself, from the counters of its switch.
import { expect, test } from 'vitest';
import { statusOf } from '../../src/daemon/gateway-offer.js';
import type { SwitchStats } from '../../src/network/switch.js';
import { ManualClock } from '../../src/telemetry/clock.js';

test('its status counts packets through tunnels, those without room, and work without waiting', async () => {
  const clock = new ManualClock();
  const now = { carried: 0, full: 0, cpuMs: 0, spunMs: 0 };
  const stats = () =>
    ({
      counters: { encapsulated: now.carried, decapsulated: now.carried },
      ports: { wire: { drops: { 'tx-full': now.full, rule: 1_000 } } },
      workers: [0, 1].map(() => ({
        ...{ cpuNs: now.cpuMs * 1e6, waiting: 3, idle: { spunNs: now.spunMs * 1e6 } },
      })),
    }) as unknown as SwitchStats;
  const status = statusOf(stats, clock);
  Object.assign(now, { carried: 500, full: 10, cpuMs: 700, spunMs: 200 });
  await clock.advance(1_000);
  expect(status()).toEqual({
    ...{ utilisation: 0.5, inFlight: 6, operations: 1_010, errors: 10, latencyMs: 0, windowMs: 1_000 },
  });
  await clock.advance(1_000);
  expect(status()).toMatchObject({ utilisation: 0, operations: 0, errors: 0, windowMs: 1_000 });
});
