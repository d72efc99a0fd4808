// A port that moves from one host to another while its station is talking: namespaces are the hosts and guests, the station's
// veth end is moved as a virtual machine's tap would appear on the new host.
import { setTimeout as pause } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import type { SwitchConfigInput } from '../../src/network/config.js';
import { Switch } from '../../src/network/switch.js';
import { lineOf, NetworkLab, networkUnavailable } from '../support/network-lab.js';

const unavailable = networkUnavailable(['python3', 'ping']);
const TIMEOUT_MS = 300_000;
const WITHIN_MS = 30_000;
const VM_MAC = '02:00:00:00:00:aa';
const HOSTS = ['10.90.0.1', '10.90.0.2', '10.90.0.3'] as const;

/** Sends bytes that differ everywhere, at a pace, until its input ends: as long as moving the port takes. Says what they were. */
const SERVE = `
import hashlib, random, select, socket, sys, time
random, digest, sent = random.Random(7), hashlib.sha256(), 0
server = socket.create_server(('', 5300))
print('listening', flush=True)
out = server.accept()[0]
while not select.select([sys.stdin], [], [], 0.02)[0]:
    data = random.randbytes(1 << 18)
    digest.update(data); sent += len(data)
    out.sendall(data)
out.close()
print(digest.hexdigest(), sent, flush=True)`;
/** The client only listens: nothing of it would open its connection again at another host. */
const FETCH = `
import hashlib, socket
digest, got = hashlib.sha256(), 0
peer = socket.create_connection(('10.91.0.3', 5300))
while data := peer.recv(1 << 16):
    digest.update(data); got += len(data)
    if got - len(data) < 1 << 20 <= got: print('a megabyte', flush=True)
print(digest.hexdigest(), got, flush=True)`;

/** Three hosts on one wire; the guest `vm` behind the first, `server` behind the third. */
function wire(lab: NetworkLab): void {
  lab.ip('wire', 'link add br0 type bridge');
  lab.ip('wire', 'link set br0 up');
  HOSTS.forEach((address, i) => {
    const host = `host${i + 1}`;
    lab.ip('wire', `link add ${host} type veth peer name eth0 netns ${lab.space(host)}`);
    lab.ip('wire', `link set ${host} mtu 1600 master br0 up`);
    lab.ip(host, 'link set eth0 mtu 1600 up');
    lab.ip(host, `addr add ${address}/24 dev eth0`);
  });
  lab.ip('host1', `link add vm0 type veth peer name eth0 netns ${lab.space('vm')}`);
  lab.ip('host3', `link add server0 type veth peer name eth0 netns ${lab.space('server')}`);
  lab.ip('vm', `link set eth0 address ${VM_MAC} up`);
  lab.ip('vm', 'addr add 10.91.0.1/24 dev eth0');
  lab.ip('vm', 'addr add fd91::1/64 dev eth0 nodad');
  lab.ip('server', 'link set eth0 up');
  lab.ip('server', 'addr add 10.91.0.3/24 dev eth0');
  lab.ip('server', 'addr add fd91::3/64 dev eth0 nodad');
}

function document(
  lab: NetworkLab,
  host: number,
  ports: NonNullable<SwitchConfigInput['ports']>,
  tunnel: 'vxlan' | 'geneve' = 'vxlan',
): SwitchConfigInput {
  const local = HOSTS[host - 1]!;
  const peers = HOSTS.filter((address) => address !== local);
  return {
    networks: { blue: { tunnel, vni: 9, underlay: 'wire', local, peers } },
    ports: {
      wire: { underlay: 'udp', namespace: lab.path(`host${host}`), address: local, mtu: 1600 },
      ...ports,
    },
    // A stateful group: the guest may begin, nobody else may.
    groups: { client: { out: [{}] } },
  };
}

const vm = (lab: NetworkLab, host: number) => ({
  interface: 'vm0',
  namespace: lab.path(`host${host}`),
  network: 'blue',
  groups: ['client'],
  mac: VM_MAC,
  addresses: ['10.91.0.1', 'fd91::1'],
});

/** The station appears on the second host, whose switch takes it as a port, beginning in this state. */
async function appearOnSecond(
  lab: NetworkLab,
  to: Switch,
  tunnel: 'vxlan' | 'geneve',
  state: 'up' | 'blocked',
) {
  lab.ip('host1', `link set vm0 netns ${lab.space('host2')}`);
  lab.ip('host2', 'link set vm0 up');
  await to.apply(document(lab, 2, { vm: { ...vm(lab, 2), state } }, tunnel));
}

/** Packets that the third host has sent to the first: floods aside, none once it knows better. */
const toFirst = (third: Switch): number =>
  third.show().peers.find(({ address }) => address === HOSTS[0])!.transmitted;

async function until(what: string, holds: () => boolean): Promise<void> {
  const endMs = performance.now() + WITHIN_MS;
  while (!holds()) {
    if (performance.now() > endMs) throw new Error(`${what}: not within ${WITHIN_MS} ms`);
    await pause(20);
  }
}

/** A guest that stands still: without IPv6 its kernel says nothing by itself when its link comes up. */
const hush = (lab: NetworkLab) => lab.run('vm', 'sysctl', '-qw', 'net.ipv6.conf.eth0.disable_ipv6=1');

const via = (plane: Switch, mac: string): string | undefined =>
  plane.show().addresses.find((address) => address.mac === mac)?.via;

describe.skipIf(unavailable !== undefined)('a port that moves to another host', () => {
  // The kernel forwards the flows of VXLAN where it can, and none of GENEVE.
  for (const { image, tunnel } of [
    { image: true, tunnel: 'vxlan' },
    { image: true, tunnel: 'geneve' },
    { image: false, tunnel: 'vxlan' },
  ] as const)
    test(`${image ? 'its transfer goes on' : 'without its connections the transfer stands still'} (${tunnel})`, {
      timeout: TIMEOUT_MS,
    }, async () => {
      await using lab = new NetworkLab('wire', 'host1', 'host2', 'host3', 'vm', 'server');
      wire(lab);
      await hush(lab);
      const options = { workers: 1, runtimeDirectory: lab.directory };
      await using from = await Switch.start(options);
      await using to = await Switch.start(options);
      await using third = await Switch.start(options);
      await from.apply(document(lab, 1, { vm: vm(lab, 1) }, tunnel));
      await to.apply(document(lab, 2, {}, tunnel));
      const server = { interface: 'server0', namespace: lab.path('host3'), network: 'blue' };
      await third.apply(document(lab, 3, { server }, tunnel));
      const serving = lab.start('server', 'python3', '-c', SERVE);
      await lineOf(serving, /listening/);
      const served = lineOf(serving, /^[0-9a-f]{64} /);
      served.catch(() => undefined); // when the lab ends before it
      // The station's address without its connection.
      const early = await from.exportPort('vm');
      const fetching = lab.start('vm', 'python3', '-c', FETCH);
      const finished = lineOf(fetching, /^[0-9a-f]{64} /);
      finished.catch(() => undefined);
      await lineOf(fetching, /a megabyte/);
      const offloads = tunnel === 'vxlan' && from.show().offload.state === 'on';
      if (offloads)
        for (const plane of [from, third])
          await until(
            'both directions are forwarded by the kernel',
            () => plane.counters().offloadedFlows! >= 2,
          );

      await from.setPortState('vm', 'blocked');
      expect(from.show().ports.vm!.state).toBe('blocked');
      // Nothing passes a blocked port, whoever has forwarded its flows.
      const passed = lab.received('vm', 'eth0');
      await pause(100);
      expect(lab.received('vm', 'eth0')).toBe(passed);
      expect(from.counters().offloadedFlows).toBe(0);
      const bytes = await from.exportPort('vm');
      await appearOnSecond(lab, to, tunnel, 'up');
      const restored = await to.importPort('vm', image ? bytes : early);
      await from.setPortState('vm', 'forward-to-peer', { peer: HOSTS[1] });
      expect(from.show().ports.vm!.state).toBe('forward-to-peer');

      if (!image) {
        const refused = () => to.stats().ports.wire!.drops['security-group'] ?? 0;
        await expect.poll(refused).toBeGreaterThan(0);
        const ended = await Promise.race([
          finished.then(() => true),
          new Promise<boolean>((resolve) => setTimeout(resolve, 4000, false)),
        ]);
        expect(ended).toBe(false);
        return;
      }
      expect(restored).toMatchObject({ withoutRoom: 0, addresses: [VM_MAC] });
      expect(restored.connections).toBeGreaterThan(0);
      await until('the third host knows better', () => via(third, VM_MAC) === `peer ${HOSTS[1]}`);
      await pause(100);
      const before = { first: toFirst(third), forwarded: to.counters().offloadedBytes! };
      const ofFlow = () => to.show().connections.find(({ flow }) => flow.includes(':5300'));
      const taken = ofFlow()!.answers.bytes;
      await until('the transfer goes on', () => ofFlow()!.answers.bytes - taken > 4 << 20);
      const isTakenOver = () => to.counters().offloadedBytes! - before.forwarded > 1 << 20;
      if (offloads) await until('the kernel of the new host has taken over', isTakenOver);
      serving.stdin!.end();
      expect(await finished).toBe(await served);

      // Nothing but broadcasts goes to the old host.
      expect(toFirst(third) - before.first).toBeLessThan(10);
      // The old host passes on, whatever it hears.
      expect(via(third, VM_MAC)).toBe(`peer ${HOSTS[1]}`);
      expect(via(from, VM_MAC)).toBe('vm');
      expect(via(to, VM_MAC)).toBe('vm');
      expect(to.stats().ports.wire!.drops['security-group'] ?? 0).toBe(0);
      const [, sent] = (await served).split(' ');
      expect(ofFlow()!.answers.bytes).toBeGreaterThan(Number(sent));
    });

  test('what comes to the old host is passed on once, and nothing of it goes round', {
    timeout: TIMEOUT_MS,
  }, async () => {
    await using lab = new NetworkLab('wire', 'host1', 'host2', 'host3', 'vm', 'server');
    wire(lab);
    await hush(lab);
    const options = { workers: 1, runtimeDirectory: lab.directory };
    await using from = await Switch.start(options);
    await using to = await Switch.start(options);
    await using third = await Switch.start(options);
    await from.apply(document(lab, 1, { vm: vm(lab, 1) }));
    await to.apply(document(lab, 2, {}));
    await third.apply(
      document(lab, 3, { server: { interface: 'server0', namespace: lab.path('host3'), network: 'blue' } }),
    );
    await lab.run('vm', 'ping', '-c', '1', '-W', '10', '10.91.0.3');
    await from.setPortState('vm', 'blocked');
    const bytes = await from.exportPort('vm');
    await appearOnSecond(lab, to, 'vxlan', 'blocked');
    expect(to.port('vm')!.state).toBe('blocked');
    await to.importPort('vm', bytes);
    await from.setPortState('vm', 'forward-to-peer', { peer: HOSTS[1] });
    // Blocked until its station is there: nothing has been announced, so the third still sends to the first.
    expect(via(third, VM_MAC)).toBe(`peer ${HOSTS[0]}`);
    // What it asks there is passed on; the guest's group, which is the new host's to heed, does not want it.
    await lab.run('server', 'ping', '-c', '2', '-i', '0.2', '-W', '1', '10.91.0.1').catch(() => undefined);
    await expect.poll(() => to.stats().ports.wire!.drops['security-group']).toBe(2);
    expect(to.show().addresses.every(({ via }) => via !== `peer ${HOSTS[0]}`)).toBe(true);
    await to.setPortState('vm', 'up');
    const answered = await lab.echoes('vm', '10.91.0.3', 5, { paceMs: 200 });
    expect(answered.sort((a, b) => a - b)).toEqual([0, 1, 2, 3, 4]);
    expect(via(third, VM_MAC)).toBe(`peer ${HOSTS[1]}`);
    expect(lab.ip('server', 'neigh show 10.91.0.1')).toContain(VM_MAC);

    // Two hosts that point at each other.
    await to.setPortState('vm', 'forward-to-peer', { peer: HOSTS[0] });
    const before = from.stats().ports.wire!.drops['forward-loop'] ?? 0;
    await lab.run('server', 'ping', '-c', '2', '-i', '0.2', '-W', '1', '10.91.0.1').catch(() => undefined);
    await expect.poll(() => from.stats().ports.wire!.drops['forward-loop']).toBe(before + 2);
    await lab.run('vm', 'ping', '-c', '1', '-W', '1', '10.91.0.3').catch(() => undefined);
    expect(to.stats().ports.vm!.drops['port-moved']).toBeGreaterThan(0);
  });

  test('an image that is damaged, of another version or another kind of port is refused and changes nothing', {
    timeout: TIMEOUT_MS,
  }, async () => {
    await using lab = new NetworkLab('wire', 'host1', 'host2', 'host3', 'vm', 'server');
    wire(lab);
    await hush(lab);
    await using plane = await Switch.start({ workers: 1, runtimeDirectory: lab.directory });
    await plane.apply(document(lab, 1, { vm: vm(lab, 1) }));
    const image = Buffer.from(await plane.exportPort('vm'));
    const refused = async (bytes: Uint8Array, message: string) =>
      expect(await plane.importPort('vm', bytes).catch((error: Error) => error)).toMatchObject({
        code: 'IMAGE',
        message: `import port vm: ${message}`,
      });
    await refused(Buffer.alloc(0), 'the state of a port: these bytes are something else, or cut short');
    await refused(image.subarray(0, -1), 'the state of a port: cut short, or followed by something');
    const damaged = Buffer.from(image);
    damaged[30]! ^= 4;
    await refused(damaged, 'the state of a port: damaged: the checksum is wrong');
    const newer = Buffer.from(image);
    newer[8] = 2;
    await refused(newer, 'the state of a port: version 2, this switch reads 1');
    const { groups: _, ...free } = vm(lab, 1);
    await plane.apply(document(lab, 1, { vm: free }));
    await refused(image, 'the state is of a port with security groups client; port "vm" has none');
    expect(plane.show().addresses).toEqual([]);

    await expect(plane.importPort('nobody', image)).rejects.toMatchObject({ code: 'PORT' });
    await expect(plane.exportPort('wire')).rejects.toThrow('an underlay has no state of its own');
    await expect(plane.setPortState('vm', 'forward-to-peer')).rejects.toMatchObject({ code: 'CONFIG' });
    await expect(plane.setPortState('vm', 'up', { peer: HOSTS[1] })).rejects.toThrow('peer: goes with');
    await expect(plane.setPortState('vm', 'forward-to-peer', { peer: '10.90.0.77' })).rejects.toThrow(
      '10.90.0.77 is no peer of network "blue"',
    );
    expect(plane.port('vm')!.state).toBe('up');
  });
});
