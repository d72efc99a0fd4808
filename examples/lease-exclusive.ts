// An exclusive resource behind an agent on a unix socket: one holder at a time, and a guard that refuses whoever comes too late.
//
//   node dist/examples/lease-exclusive.js
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  FencingGuard,
  LeaseConsumer,
  type LeaseError,
  LeaseHost,
  LeaseProducer,
  RemoteAgent,
} from 'penstock';

const directory = await mkdtemp(join(tmpdir(), 'penstock-example-'));
const host = await LeaseHost.start({
  name: 'example',
  store: `file:${directory}/state`,
  listen: `unix:${directory}/agent.sock`,
});
const agent = new RemoteAgent(`unix:${directory}/agent.sock`);
try {
  const disk = {
    service: 'disk',
    producer: 'disk-1',
    mode: 'exclusive',
    address: '/dev/sdb',
    capacity: 1,
  } as const;
  await using producer = await LeaseProducer.start({ agents: [agent], ...disk });
  const guard = new FencingGuard();

  const alice = new LeaseConsumer({ consumer: 'alice', agents: [agent] });
  const bob = new LeaseConsumer({ consumer: 'bob', agents: [agent] });
  const first = await alice.acquire('disk');
  guard.check(first.grant.fencingToken);
  console.log(`alice holds ${first.grant.address}`);
  await bob.acquire('disk').catch((error: LeaseError) => console.log(`bob: ${error.code}`));

  await first.release();
  const second = await bob.acquire('disk', { waitMs: 5000 });
  guard.check(second.grant.fencingToken);
  console.log(`bob holds ${second.grant.address}`);
  try {
    guard.check(first.grant.fencingToken);
  } catch (error) {
    console.log(`alice, too late: ${(error as LeaseError).code}`);
  }
  await second.release();
  console.log(`${producer.counters.registrations} registration`);
} finally {
  agent[Symbol.dispose]();
  await host[Symbol.asyncDispose]();
  await rm(directory, { recursive: true });
}
