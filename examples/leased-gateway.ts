// A network whose gateway is leased: two hosts offer themselves to an agent in this process, a third leases one of them, and moves
// to the other when the first drains. The hosts are network namespaces. Needs root.
//
//   node dist/examples/leased-gateway.js
import { execFileSync } from 'node:child_process';
import { buildFrame, LeasedGateways, LeaseHost, Switch } from 'penstock';

const ip = (...words: string[]) => execFileSync('ip', words, { encoding: 'utf8' });
const service = 'tunnel-gateway';
const hosts = ['here', 'east', 'west'].map((name, index) => ({
  space: `${name}-${process.pid}`,
  local: `192.0.2.${index + 1}`,
}));
const [here, east, west] = hosts as [Host, Host, Host];
type Host = (typeof hosts)[number];

async function until(done: () => boolean): Promise<void> {
  while (!done()) await new Promise((resolve) => setTimeout(resolve, 20));
}

try {
  for (const { space } of hosts) ip('netns', 'add', space);
  for (const { space, local } of hosts) {
    ip('-n', space, 'link', 'add', 'name', 'wire0', 'type', 'bridge');
    ip('-n', space, 'addr', 'add', `${local}/24`, 'dev', 'wire0');
    ip('-n', space, 'link', 'set', 'wire0', 'up');
  }
  // Leases are short here, so that a gateway that drains is left soon.
  await using host = await LeaseHost.start({ store: 'memory:', selector: { ttlMs: 600 } });
  const start = async ({ space, local }: Host, words: object) => {
    const plane = await Switch.start({ workers: 1 });
    const namespace = `/run/netns/${space}`;
    await plane.apply({
      networks: { blue: { tunnel: 'vxlan', vni: 7, underlay: 'wire', local, ...words } },
      ports: {
        wire: { underlay: 'udp', namespace, address: local },
        guest: { tap: 'guest', namespace, network: 'blue' },
      },
    });
    const leases = new LeasedGateways(plane, { agent: host.agent });
    await leases.follow();
    return {
      plane,
      leases,
      [Symbol.asyncDispose]: () => leases[Symbol.asyncDispose]().then(() => plane.stop()),
    };
  };
  await using offered = await start(east, { learnPeers: true, offer: { service } });
  await using alsoOffered = await start(west, { learnPeers: true, offer: { service } });
  await until(() => [offered, alsoOffered].every(({ leases }) => leases.offers()[0]!.registered));
  console.log(`${(await host.agent.producers(service)).length} gateways are offered`);

  await using leasing = await start(here, { gateway: { service } });
  const gateway = () => leasing.leases.gateways()[0]!;
  await until(() => gateway().state === 'leased');
  const first = gateway();
  const frame = buildFrame({ flow: 'udp 10.0.0.1:1 > 10.0.0.9:2', destinationMac: '02:00:00:00:00:09' });
  console.log(`unknown stations by it: ${leasing.plane.trace('guest', frame).text.includes(first.address!)}`);

  await host.agent.drain({ service, producer: first.producer! }, true);
  await until(() => gateway().address !== first.address);
  console.log(
    `by the other one now: ${leasing.plane.trace('guest', frame).text.includes(gateway().address!)}`,
  );
  console.log(`${(await host.agent.explain(gateway().leaseId!)).candidates.length} candidate was left`);
} finally {
  for (const { space } of hosts) ip('netns', 'delete', space);
}
