// Producers and consumers in a process of their own, driven by lines of JSON on standard input, telling what happens on standard
// output. Runs the compiled library, as a user's process would.
//
//   node party.mjs '{"agents": ["unix:..."]}'
//   <  {"do": "produce", "service", "producer", "mode", "capacity"}     >  {"registered": "p0"}
//   <  {"do": "consume", "service", "consumer", "holdMs"}               >  {"used", "token", "atMs", "untilMs"}... {"ended"...}, for ever
//   <  {"do": "crowd", "service", "count"}                              >  {"held", "renewals", "atMs"}..., for ever
//   With "times": N so many of them at once, named NAME-0 and so on.
import { createInterface } from 'node:readline';
import { LeaseConsumer, LeaseProducer, RemoteAgent } from 'penstock';

const { agents, timeoutMs = 2000, tls } = JSON.parse(process.argv[2]);
const connected = new Map();
const connect = (address) => {
  if (!connected.has(address)) connected.set(address, new RemoteAgent(address, { timeoutMs, tls }));
  return connected.get(address);
};
const seeds = agents.map(connect);
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
// The same clock for every process of this host.
const nowMs = () => Number(process.hrtime.bigint() / 1000n) / 1000;

async function produce({ service, producer, mode, capacity = 1, reportIntervalMs }) {
  const status = () => ({
    utilisation: 0.3,
    inFlight: 1,
    operations: 100,
    errors: 0,
    latencyMs: 1,
    windowMs: 500,
  });
  for (;;) {
    try {
      await LeaseProducer.start({
        agents: seeds,
        connect,
        service,
        producer,
        mode,
        address: producer,
        capacity,
        status,
        ...(reportIntervalMs === undefined ? {} : { reportIntervalMs }),
      });
      return say({ registered: producer });
    } catch (error) {
      say({ refused: error.code, what: 'register' });
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }
}

/** Leases, uses and gives back, for ever. Each use names its instant, so that a referee can compare processes. */
async function consume({ service, consumer, holdMs = 300, useMs = 20 }) {
  const asking = new LeaseConsumer({ consumer, agents: seeds, connect });
  for (;;) {
    let lease;
    try {
      lease = await asking.acquire(service);
    } catch (error) {
      say({ refused: error.code ?? String(error), consumer, retryAfterMs: error.retryAfterMs });
      await new Promise((resolve) => setTimeout(resolve, error.retryAfterMs ?? 50));
      continue;
    }
    const { producer, fencingToken: token } = lease.grant;
    const stopMs = nowMs() + holdMs * (0.5 + Math.random());
    while (nowMs() < stopMs && lease.held) {
      const atMs = nowMs();
      const leftMs = lease.remainingMs;
      if (leftMs > 0) say({ used: producer, token, consumer, atMs, untilMs: atMs + leftMs });
      await new Promise((resolve) => setTimeout(resolve, useMs));
    }
    // From here on it is used no more, whether that is told or not.
    say({ ended: producer, token, atMs: nowMs() });
    if (lease.held && Math.random() < 0.7)
      await lease.release().catch((error) => say({ refused: error.code, consumer }));
    else lease.abandon();
  }
}

/** Takes `count` leases together and keeps them; tells when each is renewed. */
async function crowd({ service, count }) {
  const startedMs = nowMs();
  const leases = await Promise.all(
    Array.from({ length: count }, (_, i) =>
      new LeaseConsumer({ consumer: `crowd-${i}`, agents: seeds, connect }).acquire(service, {
        waitMs: 20_000,
      }),
    ),
  );
  say({ leased: leases.length, inMs: nowMs() - startedMs });
  setInterval(() => {
    const held = leases.filter((lease) => lease.held).length;
    const renewals = leases.reduce((sum, lease) => sum + lease.counters.renewals, 0);
    say({ held, renewals, atMs: nowMs() });
  }, 100);
}

for await (const line of createInterface({ input: process.stdin })) {
  const message = JSON.parse(line);
  const work = { produce, consume, crowd }[message.do];
  for (let i = 0; i < (message.times ?? 1); i += 1) {
    const suffix = message.times === undefined ? '' : `-${i}`;
    const named = Object.fromEntries(
      ['producer', 'consumer'].filter((key) => message[key]).map((key) => [key, message[key] + suffix]),
    );
    work({ ...message, ...named }).catch((error) => say({ failed: String(error.stack) }));
  }
}
