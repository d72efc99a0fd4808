// A wire that is slower than what is sent: the underlay's socket fills up, and what it does not take waits instead of being lost.
import type { ChildProcess } from 'node:child_process';
import { execFileSync } from 'node:child_process';
import { describe, expect, test } from 'vitest';
import { Switch } from '../../src/network/switch.js';
import { lineOf, NetworkLab, networkUnavailable } from '../support/network-lab.js';

const unavailable = networkUnavailable(['python3', 'tc', 'ping', 'ethtool']);
/** Datagrams of one step: well below the 256 KiB that wait. */
const STEP = 48;
const DATAGRAM_BYTES = 1400;
const STEPS_MAX = 400;

const SEND = `
import socket, sys
out, count = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0
for line in sys.stdin:
    for _ in range(int(line)):
        out.sendto(count.to_bytes(4, 'big') + bytes(${DATAGRAM_BYTES - 4}), ('10.92.0.2', 5400))
        count += 1
    print(f'sent {count} datagrams', flush=True)`;
/** Says what came, in order or not, once it has been told how many are to come and has them. */
const RECEIVE = `
import select, socket, sys, time
server, got, due, end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), [], None, 0
server.setsockopt(socket.SOL_SOCKET, 33, 1 << 25) # SO_RCVBUFFORCE
server.bind(('', 5400))
print('listening', flush=True)
def take(*others, seconds):
    ready = select.select([server, *others], [], [], seconds)[0]
    if server in ready: got.append(int.from_bytes(server.recv(2000)[:4], 'big'))
    return ready
while due is None:
    if sys.stdin in take(sys.stdin, seconds=None): due, end = int(sys.stdin.readline()), time.monotonic() + 30
while len(got) < due and time.monotonic() < end: take(seconds=1)
while take(seconds=0.5): pass # more than were sent
order = 'in order' if got == list(range(len(got))) else 'disordered'
print(f'came {len(got)} {order}', flush=True)`;

async function wire(lab: NetworkLab): Promise<void> {
  lab.ip('host1', `link add wire type veth peer name wire netns ${lab.space('host2')}`);
  for (const i of [1, 2]) {
    lab.ip(`host${i}`, 'link set wire mtu 1600 up');
    lab.ip(`host${i}`, `addr add 192.0.2.${i}/24 dev wire`);
    lab.ip(`host${i}`, `link add v0 type veth peer name eth0 netns ${lab.space(`guest${i}`)}`);
    lab.ip(`guest${i}`, 'link set eth0 up');
    lab.ip(`guest${i}`, `addr add 10.92.0.${i}/24 dev eth0`);
  }
  // Whatever a veth hands to the kernel's backlogs, one for each processor, is disordered when its sender moves to another
  // processor. With GRO at the end and no TSO at the beginning it goes through one queue (veth_skb_is_eligible_for_gro).
  for (const [from, begin, to, end] of [
    ['guest1', 'eth0', 'host1', 'v0'],
    ['host1', 'wire', 'host2', 'wire'],
    ['host2', 'v0', 'guest2', 'eth0'],
  ] as const) {
    await lab.run(from, 'ethtool', '-K', begin, 'tso', 'off');
    await lab.run(to, 'ethtool', '-K', end, 'gro', 'on');
  }
}

const shape = (lab: NetworkLab, verb: 'add' | 'change', rate: string): void => {
  const words = `qdisc ${verb} dev wire root tbf rate ${rate} burst 256k limit 64mb`;
  execFileSync('tc', ['-n', lab.space('host1'), ...words.split(' ')]);
};

async function send(sender: ChildProcess, datagrams: number): Promise<number> {
  const sent = lineOf(sender, /^sent \d+ datagrams$/);
  sender.stdin!.write(`${datagrams}\n`);
  return Number((await sent).split(' ')[1]);
}

describe.skipIf(unavailable !== undefined)('an underlay whose socket is full', () => {
  test('holds packets back until there is room, in order, and drops only what does not fit', {
    timeout: 300_000,
  }, async () => {
    await using lab = new NetworkLab('host1', 'host2', 'guest1', 'guest2');
    await wire(lab);
    const start = async (i: number): Promise<Switch> => {
      const plane = await Switch.start({ workers: 1, runtimeDirectory: lab.directory });
      const namespace = lab.path(`host${i}`);
      const local = `192.0.2.${i}`;
      await plane.apply({
        offload: 'off', // it is our own sending that is looked at
        networks: {
          blue: { tunnel: 'vxlan', vni: 3, underlay: 'wire', local, peers: [`192.0.2.${3 - i}`] },
        },
        ports: {
          wire: { underlay: 'udp', namespace, address: local, mtu: 1600 },
          guest: { interface: 'v0', namespace, network: 'blue' },
        },
      });
      return plane;
    };
    await using here = await start(1);
    await using there = await start(2);
    const facts = () => here.port('wire')!;
    await lab.run('guest1', 'ping', '-c', '1', '-W', '10', '10.92.0.2');
    const receiver = lab.start('guest2', 'python3', '-c', RECEIVE);
    await lineOf(receiver, /listening/);
    const came = lineOf(receiver, /^came \d+ (in order|disordered)$/);
    came.catch(() => undefined);
    const sender = lab.start('guest1', 'python3', '-c', SEND);

    shape(lab, 'add', '8mbit');
    let sent = 0;
    let held = 0;
    for (let step = 0; held === 0 && step < STEPS_MAX; step += 1) {
      sent = await send(sender, STEP);
      await expect.poll(() => here.port('guest')!.received.packets).toBeGreaterThanOrEqual(sent);
      held = facts().heldBytes;
    }
    expect(held).toBeGreaterThan(0);
    expect(facts().blocked).toBeGreaterThan(0);
    expect(facts().drops['tx-full'] ?? 0).toBe(0);
    shape(lab, 'change', '10gbit');
    receiver.stdin!.write(`${sent}\n`);
    expect(await came).toBe(`came ${sent} in order`);
    expect(facts().heldBytes).toBe(0);
    expect(there.port('wire')!.lost).toBe(0);

    // There is an end to it: far more than the socket and 256 KiB hold.
    shape(lab, 'change', '8mbit');
    for (let step = 0; (facts().drops['tx-full'] ?? 0) === 0 && step < 10 * STEPS_MAX; step += 1)
      await send(sender, 10 * STEP);
    expect(facts().drops['tx-full']).toBeGreaterThan(0);
    shape(lab, 'change', '10gbit');
    await lab.run('guest1', 'ping', '-c', '3', '-i', '0.2', '-W', '10', '10.92.0.2');
  });
});
