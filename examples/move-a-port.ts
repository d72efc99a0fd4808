// A guest moves from one host to another while it talks to a third party: its port's state goes along, and its old host passes
// on what still comes there. Hosts and guests are network namespaces, the guest's interface is moved as a virtual machine's tap
// would appear on the new host. Needs root.
import { execFileSync } from 'node:child_process';
import { Switch, type SwitchConfigInput } from 'penstock';

const ip = (...words: string[]) => execFileSync('ip', words, { encoding: 'utf8' });
const spaces = ['host1', 'host2', 'guest', 'friend'].map((name) => `${name}-${process.pid}`);
const [host1, host2, guest, friend] = spaces as [string, string, string, string];
const path = (space: string) => `/run/netns/${space}`;

try {
  for (const space of spaces) ip('netns', 'add', space);
  ip('-n', host1, 'link', 'add', 'wire', 'type', 'veth', 'peer', 'name', 'wire', 'netns', host2);
  for (const [host, address] of [
    [host1, '192.0.2.1/24'],
    [host2, '192.0.2.2/24'],
  ] as const) {
    ip('-n', host, 'link', 'set', 'wire', 'mtu', '1600', 'up');
    ip('-n', host, 'addr', 'add', address, 'dev', 'wire');
  }
  ip('-n', host1, 'link', 'add', 'vm0', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', guest);
  ip('-n', guest, 'link', 'set', 'eth0', 'up');
  ip('-n', guest, 'addr', 'add', '10.0.0.1/24', 'dev', 'eth0');

  // A stateful group: the guest may begin, nobody else may.
  const vm = (host: string) => ({
    interface: 'vm0',
    namespace: path(host),
    network: 'blue',
    groups: ['client'],
  });
  const document = (
    host: string,
    local: string,
    peer: string,
    ports: NonNullable<SwitchConfigInput['ports']>,
  ): SwitchConfigInput => ({
    networks: { blue: { tunnel: 'vxlan', vni: 7, underlay: 'wire', local, peers: [peer] } },
    ports: { wire: { underlay: 'auto', namespace: path(host), address: local, mtu: 1600 }, ...ports },
    groups: { client: { out: [{}] } },
  });

  await using here = await Switch.start();
  await using there = await Switch.start();
  await here.apply(document(host1, '192.0.2.1', '192.0.2.2', { vm: vm(host1) }));
  const tap = { friend: { tap: 'eth0', namespace: path(friend), network: 'blue' } };
  await there.apply(document(host2, '192.0.2.2', '192.0.2.1', tap));
  ip('-n', friend, 'addr', 'add', '10.0.0.2/24', 'dev', 'eth0');

  const ping = () => ip('netns', 'exec', guest, 'ping', '-q', '-c', '2', '10.0.0.2');
  console.log(`before: ${/\d+ packets transmitted, \d+ received/.exec(ping())?.[0]}`);

  // The guest stands still from here ...
  await here.setPortState('vm', 'blocked');
  const image = await here.exportPort('vm');
  ip('-n', host1, 'link', 'set', 'vm0', 'netns', host2);
  await there.apply(document(host2, '192.0.2.2', '192.0.2.1', { ...tap, vm: vm(host2) }));
  const taken = await there.importPort('vm', image);
  await here.setPortState('vm', 'forward-to-peer', { peer: '192.0.2.2' });
  // ... to here.
  console.log(`took over ${taken.addresses.length} address, connections: ${taken.connections > 0}`);
  console.log(`the old host: ${here.port('vm')?.state}`);
  console.log(`after: ${/\d+ packets transmitted, \d+ received/.exec(ping())?.[0]}`);
} finally {
  for (const space of spaces) ip('netns', 'delete', space);
}
