// Two hosts, each with a guest, joined by a VXLAN overlay: the hosts and guests are network namespaces, everything else is as it
// would be between two machines. Needs root.
import { execFileSync } from 'node:child_process';
import { Switch } from 'penstock';

const ip = (...words: string[]) => execFileSync('ip', words, { encoding: 'utf8' });
const spaces = ['host1', 'host2', 'guest1', 'guest2'].map((name) => `${name}-${process.pid}`);
const [host1, host2, guest1, guest2] = spaces as [string, string, string, string];
const path = (space: string) => `/run/netns/${space}`;

try {
  for (const space of spaces) ip('netns', 'add', space);
  // The wire between the hosts has room for the tunnel's headers.
  ip('-n', host1, 'link', 'add', 'wire', 'type', 'veth', 'peer', 'name', 'wire', 'netns', host2);
  for (const [host, address] of [
    [host1, '192.0.2.1/24'],
    [host2, '192.0.2.2/24'],
  ] as const) {
    ip('-n', host, 'link', 'set', 'wire', 'mtu', '1600', 'up');
    ip('-n', host, 'addr', 'add', address, 'dev', 'wire');
  }

  const end = async (host: string, guest: string, local: string, peer: string) => {
    const plane = await Switch.start();
    await plane.apply({
      networks: { blue: { tunnel: 'vxlan', vni: 7, underlay: 'wire', local, peers: [peer] } },
      ports: {
        wire: { underlay: 'auto', namespace: path(host), address: local, mtu: 1600 },
        guest: { tap: 'eth0', namespace: path(guest), network: 'blue' },
      },
    });
    return plane;
  };
  await using here = await end(host1, guest1, '192.0.2.1', '192.0.2.2');
  await using there = await end(host2, guest2, '192.0.2.2', '192.0.2.1');
  ip('-n', guest1, 'addr', 'add', '10.0.0.1/24', 'dev', 'eth0');
  ip('-n', guest2, 'addr', 'add', '10.0.0.2/24', 'dev', 'eth0');

  const ping = ip('netns', 'exec', guest1, 'ping', '-q', '-c', '3', '10.0.0.2');
  console.log(/\d+ packets transmitted, \d+ received/.exec(ping)?.[0]);
  const stations = here.show().addresses.map(({ via }) => via);
  console.log(`host 1 knows stations by: ${stations.sort().join(', ')}`);
  console.log(
    `host 2 took more than 3 packets out of the tunnel: ${there.stats().counters.decapsulated! > 3}`,
  );
} finally {
  for (const space of spaces) ip('netns', 'delete', space);
}
