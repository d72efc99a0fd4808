// Watchers of events, and what is left of them.
import { getEventListeners } from 'node:events';
import { expect, test } from 'vitest';
import type { LeaseEvent } from '../../src/lease/contract.js';
import { EventHub, QUEUE_MAX } from '../../src/lease/event-hub.js';

const event: LeaseEvent = {
  kind: 'granted',
  service: 's',
  producer: 'p',
  leaseId: 'l',
  consumer: 'c',
  fencingToken: 1,
};

test('a watcher that went, or fell too far behind, is held by nothing', async () => {
  const hub = new EventHub();
  const { signal } = new AbortController();
  const went = hub.watch({}, signal);
  const behind = hub.watch({}, signal);
  for (let i = 0; i <= QUEUE_MAX; i += 1) hub.publish(event);
  for await (const _ of went) break;
  const read = async () => {
    for await (const each of behind) expect(each).toBe(event);
  };
  await expect(read()).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  expect(hub.watchers).toBe(0);
  expect(getEventListeners(signal, 'abort')).toHaveLength(0);
});
