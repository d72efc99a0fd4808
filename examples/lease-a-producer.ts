// A lease agent in this process: two tunnel gateways are registered, a consumer leases one, tells how it went, and learns why it was
// given the other one next.
//
//   node dist/examples/lease-a-producer.js
import { LeaseConsumer, LeaseHost, LeaseProducer } from 'penstock';

await using host = await LeaseHost.start({ name: 'example', store: 'memory:' });
const agents = [host.agent];

const gateway = (producer: string) =>
  LeaseProducer.start({
    agents,
    service: 'tunnel-gateway',
    producer,
    mode: 'shared',
    address: `${producer}.example:4789`,
    capacity: 100,
    status: () => ({
      utilisation: 0.3,
      inFlight: 3,
      operations: 500,
      errors: 0,
      latencyMs: 2,
      windowMs: 1000,
    }),
  });
await using east = await gateway('east');
await using west = await gateway('west');
console.log(`${(await host.agent.producers()).length} producers are registered`);

const consumer = new LeaseConsumer({ consumer: 'switch-1', agents });
const first = await consumer.acquire('tunnel-gateway');
console.log(`leased a gateway, held: ${first.held}`);

// Probes of its tunnel endpoint were lost: the report travels in the next request, which avoids it.
first.finish({ operations: 20, errors: 20, rejected: 0, latencyP50Ms: 0, latencyP99Ms: 0, windowMs: 1000 });
await using second = await consumer.acquire('tunnel-gateway');
console.log(`leased the other one next: ${second.grant.producer !== first.grant.producer}`);

// The first one is not even a candidate now: every consumer that spoke of it says that it fails.
const { candidates, text } = await host.agent.explain(second.grant.leaseId);
console.log(`candidates: ${candidates.length}, said in ${text.split('\n').length} lines`);
console.log(`${east.counters.registrations + west.counters.registrations} registrations`);
