// A network whose gateway is leased, end to end: an agent, two gateway hosts and a host with a guest, each a daemon of its own in
// a namespace of its own. The gateways reach the same outside.
//
//   guest ─ here ─┬─ core ─┬─ gw1 ─┬─ outside (10.0.0.9)
//                 │        └─ gw2 ─┘
//                 └ VXLAN to whichever is leased
import type { ChildProcess } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { packageRoot } from '../../bindings/load.js';
import type { SwitchRoleView } from '../../src/daemon/switch-role.js';
import { RemoteAgent } from '../../src/lease/grpc/client.js';
import { call } from '../../src/rpc/client.js';
import { lineOf, NetworkLab, networkUnavailable } from '../support/network-lab.js';

const unavailable = networkUnavailable(['python3']);
const SERVICE = 'tunnel-gateway';
const TTL_MS = 2_000;
const SILENT_AFTER_MS = 1_500;
/** All of it takes a second or two on a machine that has nothing else to do. */
const WITHIN_MS = 30_000;
const HOSTS = { here: 1, gw1: 2, gw2: 3 } as const;
type Host = keyof typeof HOSTS;

const address = (host: Host) => `10.60.0.${HOSTS[host]}`;

interface Source {
  readonly name: string;
  readonly counters: Readonly<Record<string, number>>;
}

class Overlay implements AsyncDisposable {
  readonly lab = new NetworkLab('core', 'here', 'gw1', 'gw2', 'guest', 'outside');
  readonly socket = `unix:${join(this.lab.directory, 'agent.sock')}`;
  readonly agent = new RemoteAgent(this.socket, { timeoutMs: 2000 });
  readonly daemons = new Map<string, ChildProcess>();
  /** The log of each. */
  readonly said = new Map<string, string>();

  wire(): void {
    const { lab } = this;
    for (const space of ['core', 'outside']) {
      lab.ip(space, 'link add name lan type bridge');
      lab.ip(space, 'link set lan up');
    }
    const attach = (space: string, host: Host, name: string) => {
      lab.ip(space, `link add to-${host} type veth peer name ${name} netns ${lab.space(host)}`);
      lab.ip(space, `link set to-${host} master lan mtu 1600 up`);
      lab.ip(host, `link set ${name} mtu ${name === 'wire' ? 1600 : 1500} up`);
    };
    for (const host of Object.keys(HOSTS) as Host[]) {
      attach('core', host, 'wire');
      lab.ip(host, `addr add ${address(host)}/24 dev wire`);
      if (host !== 'here') attach('outside', host, 'ext');
    }
    lab.ip('outside', 'addr add 10.0.0.9/24 dev lan');
  }

  /** `penstock up` inside; resolves when it is ready. */
  async up(space: string, config: object): Promise<void> {
    const file = join(this.lab.directory, `${space}.yaml`);
    writeFileSync(file, JSON.stringify({ log: { level: 'info' }, ...config }));
    const child = this.lab.start(space, 'env', ...this.#penstock(space), 'up', file, '--json');
    this.daemons.set(space, child);
    this.said.set(space, '');
    child.stderr!.on('data', (chunk: Buffer) => {
      this.said.set(space, `${this.said.get(space)}${chunk}`);
    });
    await lineOf(child, /volumes/).catch((error: Error) => {
      throw new Error(`${space}: ${error.message} ${this.said.get(space)}`);
    });
  }

  show(): Promise<SwitchRoleView> {
    return this.#ask<SwitchRoleView>('here', 'switch-show');
  }

  showText(): Promise<string> {
    return this.lab.run('here', 'env', ...this.#penstock('here'), 'switch', 'show');
  }

  /** The host whose gateway is in place. */
  async gateway(): Promise<Host | undefined> {
    const [view] = (await this.show()).gateways;
    return (Object.keys(HOSTS) as Host[]).find((host) => view?.address === address(host));
  }

  kill(space: string): Promise<void> {
    const child = this.daemons.get(space)!;
    const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
    child.kill('SIGKILL');
    return ended;
  }

  /** How many of `count` echoes to the outside are answered, one every 20 ms. */
  async answers(count: number, patienceMs?: number): Promise<number> {
    const options = patienceMs === undefined ? {} : { patienceMs };
    return new Set(await this.lab.echoes('guest', '10.0.0.9', count, options)).size;
  }

  /** Whether the outside answers by now. */
  async isAnswered(): Promise<true | undefined> {
    return (await this.answers(1, 1000)) === 1 ? true : undefined;
  }

  /** How many listen to the agent's events. */
  async watchers(): Promise<number> {
    const { sources } = await this.#ask<{ sources: Source[] }>('core', 'stats');
    return sources.find(({ name }) => name === 'lease')!.counters.watchers!;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.agent[Symbol.dispose]();
    await this.lab[Symbol.asyncDispose]();
  }

  #ask<Answer>(space: string, method: string): Promise<Answer> {
    const socket = join(this.lab.directory, `run-${space}`, `${this.daemons.get(space)!.pid}.sock`);
    return call<Answer>(socket, method, {});
  }

  #penstock(space: string): string[] {
    const main = join(packageRoot(), 'dist/src/cli/main.js');
    return [`PENSTOCK_RUNTIME_DIR=${join(this.lab.directory, `run-${space}`)}`, process.execPath, main];
  }
}

async function until<T>(what: string, look: () => Promise<T | undefined>): Promise<T> {
  const endMs = performance.now() + WITHIN_MS;
  for (;;) {
    const found = await look();
    if (found !== undefined) return found;
    if (performance.now() > endMs) throw new Error(`${what}: not within ${WITHIN_MS} ms`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

describe.skipIf(unavailable !== undefined)('a leased gateway', () => {
  test('takes the traffic, and another one when it drains or dies; without an agent it stays', {
    timeout: 240_000,
  }, async () => {
    await using overlay = new Overlay();
    const { lab, socket, agent } = overlay;
    overlay.wire();
    const lease = { name: 'agent', store: `file:${join(lab.directory, 'store')}`, listen: socket };
    await overlay.up('core', {
      lease: { ...lease, services: { [SERVICE]: { ttlMs: TTL_MS, silentAfterMs: SILENT_AFTER_MS } } },
    });
    const plane = (host: Host, blue: object, port: object) => ({
      switch: {
        workers: 1,
        networks: {
          blue: { tunnel: 'vxlan', vni: 7, underlay: 'wire', local: address(host), ...blue },
        },
        ports: {
          wire: { underlay: 'udp', address: address(host), mtu: 1600 },
          inside: { network: 'blue', ...port },
        },
      },
    });
    const offer = { service: SERVICE, agent: socket };
    const gateway = (host: Host) =>
      overlay.up(host, plane(host, { learnPeers: true, offer }, { interface: 'ext' }));
    const leased = { gateway: { service: SERVICE, agent: socket, probeMs: 100 } };
    await Promise.all([
      gateway('gw1'),
      gateway('gw2'),
      overlay.up('here', plane('here', leased, { tap: 'eth0', namespace: lab.path('guest') })),
    ]);
    lab.ip('guest', 'addr add 10.0.0.1/24 dev eth0');
    await until('both gateways register', async () =>
      (await agent.producers(SERVICE)).length === 2 ? true : undefined,
    );
    const first = await until('a gateway', () => overlay.gateway());
    await until('an answer', () => overlay.isAnswered());
    expect(await overlay.answers(20)).toBe(20);

    const [view] = (await overlay.show()).gateways;
    expect(view).toMatchObject({ network: 'blue', state: 'leased', address: address(first) });
    expect(view!.weight).toBeGreaterThan(0);
    expect(view!.echoes!.sent).toBeGreaterThan(0);
    expect((await agent.explain(view!.leaseId!)).text).toContain(`chosen  ${view!.producer}`);
    expect(await overlay.showText()).toMatch(
      new RegExp(`blue +${address(first)} +leased +${view!.producer}`),
    );

    // Drained: the lease is not renewed, and nothing is lost while the next gateway takes over.
    await agent.drain({ service: SERVICE, producer: view!.producer! }, true);
    expect(await overlay.answers(100)).toBe(100);
    const second = await until('the other gateway', async () => {
      const now = await overlay.gateway();
      return now === first ? undefined : now;
    });
    expect(second).not.toBe(first);
    await agent.drain({ service: SERVICE, producer: view!.producer! }, false);

    // Taken away: left at once, not only when the lease is renewed.
    const { leaseId } = (await overlay.show()).gateways[0]!;
    await until('its events are listened to', async () =>
      (await overlay.watchers()) > 0 ? true : undefined,
    );
    await agent.revoke(leaseId!);
    await until('another lease', async () => {
      const now = (await overlay.show()).gateways[0]!.leaseId;
      return now === leaseId ? undefined : now;
    });
    // An event says so; a renewal would be refused in other words.
    await expect.poll(() => overlay.said.get('here')).toContain(`lease ${leaseId} was taken away`);
    expect(await overlay.answers(20)).toBe(20);

    // Its daemon is killed, and its host goes on answering echoes: the agent misses its heartbeats.
    const doomed = (await overlay.gateway())!;
    const other: Host = doomed === 'gw1' ? 'gw2' : 'gw1';
    const { counters } = (await overlay.show()).gateways[0]!;
    await overlay.kill(doomed);
    await until('the other gateway', async () => ((await overlay.gateway()) === other ? true : undefined));
    await until('an answer by it', () => overlay.isAnswered());
    expect((await overlay.show()).gateways[0]!.counters.echoesLost).toBe(counters.echoesLost);
    await gateway(doomed);
    await until('it is heard again', async () => {
      const all = await agent.producers(SERVICE);
      return all.length === 2 && all.every(({ health }) => health === 'healthy') ? true : undefined;
    });

    // Killed, with its host: its echoes are lost, and the traffic goes by the other one.
    await overlay.kill(other);
    lab.ip(other, 'link set wire down');
    await until('an answer by the other gateway', () => overlay.isAnswered());
    expect(await overlay.gateway()).toBe(doomed);

    // Without an agent nobody renews; a gateway that answers stays beyond its lease.
    await overlay.kill('core');
    expect(await overlay.answers(100)).toBe(100);
    await until('the loss of the lease', async () =>
      (await overlay.show()).gateways[0]!.state === 'kept' ? true : undefined,
    );
    expect(await overlay.answers(20)).toBe(20);
    const [kept] = (await overlay.show()).gateways;
    expect(kept).toMatchObject({ address: address(doomed), error: expect.stringContaining('UNAVAILABLE') });
  });
});
