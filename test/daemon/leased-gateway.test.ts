// The gateway of a network against a real agent, on a clock that the test moves: gateways die, drain and come back, the agent does.
import fc from 'fast-check';
import { afterEach, describe, expect, test } from 'vitest';
import { EchoWindow } from '../../src/daemon/echo-window.js';
import { LeasedGateway } from '../../src/daemon/leased-gateway.js';
import { MemoryEngine } from '../../src/kv/memory-engine.js';
import { LeaseAgent } from '../../src/lease/agent.js';
import { LeaseConsumer } from '../../src/lease/consumer.js';
import type { AgentApi, LeaseRequest, ServiceMode } from '../../src/lease/contract.js';
import { LeaseError } from '../../src/lease/errors.js';
import { KvCoordination } from '../../src/lease/kv-coordination.js';
import { formatIp } from '../../src/network/addresses.js';
import type { NetworkGateway } from '../../src/network/compile.js';
import { ManualClock } from '../../src/telemetry/clock.js';
import { type Logger, silentLogger } from '../../src/telemetry/logger.js';
import { seededRandom } from '../../src/telemetry/random.js';

const SERVICE = 'gateway';
const TTL_MS = 3_000;
const PROBE_MS = 300;
const STEP_MS = 50;
const HEARTBEAT_MS = 250;
const SILENT_AFTER_MS = 1_000;
const GATEWAYS = ['g1', 'g2', 'g3'] as const;
const addressOf = (gateway: string) => `10.0.0.${gateway.slice(1)}`;

class World implements AsyncDisposable {
  readonly clock = new ManualClock(1_000_000);
  readonly requests: LeaseRequest[] = [];
  readonly warnings: string[] = [];
  readonly dead = new Set<string>();
  /** Whose daemon died: its host answers echoes, and nobody speaks to the agent. */
  readonly mute = new Set<string>();
  /** What the plane was told last. */
  plane: NetworkGateway = {};
  agentDown = false;
  /** Its events cannot be listened to. */
  deaf = false;
  refusesPlane = false;
  /** No socket for an echo can be had. */
  unprobed = false;
  agent!: LeaseAgent;
  gateway!: LeasedGateway;

  static async start(
    mode: ServiceMode,
    seed = 1,
    addresses = addressOf,
    silentAfterMs = 1e9,
  ): Promise<World> {
    const world = new World();
    const { clock } = world;
    const engine = new MemoryEngine();
    world.agent = await LeaseAgent.start({
      ...{ name: 'a', address: '', state: engine, coordination: new KvCoordination(engine, clock) },
      selector: { ttlMs: TTL_MS, slowStartMs: 0, silentAfterMs },
      forgetAfterMs: 1e9,
      ...{ clock, random: seededRandom(seed) },
    });
    for (const producer of GATEWAYS) {
      const address = addresses(producer);
      await world.agent.register({ service: SERVICE, producer, mode, address, capacity: 10 });
    }
    world.gateway = world.lease(seed);
    return world;
  }

  lease(seed: number): LeasedGateway {
    const { clock } = this;
    const random = seededRandom(seed);
    const logger: Logger = {
      ...silentLogger,
      warn: (_, message) => void this.warnings.push(message),
      child: () => logger,
    };
    return new LeasedGateway({
      ...{ network: 'blue', config: { service: SERVICE, probeMs: PROBE_MS }, clock, random, logger },
      plane: {
        setGateway: async (_, gateway) => {
          if (this.refusesPlane) throw new Error('the plane refuses');
          this.plane = gateway;
        },
      },
      consumer: new LeaseConsumer({ consumer: 'me', agents: [this.#door()], clock, random }),
      echo: async (address, timeoutMs) => {
        if (this.unprobed) throw new Error('too many open files');
        const lost = this.dead.has(`g${address.at(-1)}`);
        await clock.sleep(lost ? timeoutMs : 1);
        return lost ? undefined : 1;
      },
    });
  }

  get current(): string | undefined {
    return this.plane.current && formatIp(this.plane.current);
  }

  /** Everybody but the mute is heard of while time passes. */
  async passHeard(ms: number, look: () => void = () => undefined): Promise<void> {
    for (let left = ms; left > 0; left -= HEARTBEAT_MS) {
      for (const producer of GATEWAYS)
        if (!this.mute.has(producer)) await this.agent.report({ service: SERVICE, producer });
      await this.pass(Math.min(HEARTBEAT_MS, left), look);
    }
  }

  async pass(ms: number, look: () => void = () => undefined): Promise<void> {
    for (let left = ms; left > 0; left -= STEP_MS) {
      await this.clock.advance(Math.min(STEP_MS, left));
      await new Promise(setImmediate);
      look();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    let over = false;
    const done = this.gateway[Symbol.asyncDispose]().finally(() => {
      over = true;
    });
    while (!over) await this.pass(STEP_MS);
    await done;
    await this.agent[Symbol.asyncDispose]();
  }

  /** The agent as it is reached: not at all while it is down. */
  #door(): AgentApi {
    return new Proxy(this.agent, {
      get: (agent, name) => {
        const value = Reflect.get(agent, name) as unknown;
        if (typeof value !== 'function') return value;
        return (...argv: unknown[]) => {
          const unavailable = new LeaseError('UNAVAILABLE', 'nobody answers');
          if ((this.agentDown || this.deaf) && name === 'watch') throw unavailable;
          if (this.agentDown) return Promise.reject(unavailable);
          if (name === 'request') this.requests.push(argv[0] as LeaseRequest);
          return (value as (...all: unknown[]) => unknown).apply(agent, argv);
        };
      },
    });
  }
}

let world: World;
afterEach(() => world[Symbol.asyncDispose]());

const nameOf = (address: string | undefined) => `g${address?.at(-1)}`;

describe('a leased gateway', () => {
  test('is in place once it is granted, and renewed', async () => {
    world = await World.start('shared');
    await world.pass(500);
    const { address, state } = world.gateway.view();
    expect({ address, state }).toEqual({ address: world.current, state: 'leased' });
    const { leaseId } = world.gateway.view();
    await world.pass(5 * TTL_MS);
    expect(world.gateway.view()).toMatchObject({ leaseId, state: 'leased', counters: { moves: 1 } });
    expect(world.gateway.view().weight).toBeGreaterThan(0);
  });

  test('whose echoes are lost is left for another one, with the report on it in the request', async () => {
    world = await World.start('shared');
    await world.pass(2_000);
    const { leaseId, address } = world.gateway.view();
    world.dead.add(nameOf(address));
    await world.pass(3 * PROBE_MS + 200);
    expect(world.current).not.toBe(address);
    expect(world.plane.leaving!.map(formatIp)).toEqual([address]);
    expect(world.requests.at(-1)!.previous).toMatchObject({
      leaseId,
      operations: 5,
      errors: 3,
      latencyP50Ms: 1,
    });
    await world.pass(2_500);
    expect(world.plane.leaving ?? []).toEqual([]);
  });

  test('that cannot be probed for a while is probed again; said once', async () => {
    world = await World.start('shared');
    await world.pass(500);
    world.unprobed = true;
    await world.pass(2_000);
    world.unprobed = false;
    const before = world.current!;
    world.dead.add(nameOf(before));
    await world.pass(5 * PROBE_MS + TTL_MS / 2);
    expect(world.current).not.toBe(before);
    expect(world.warnings).toEqual(['the gateway is not probed; tried again']);
  });

  test('that drains is left before its lease ends, and taken away from nobody meanwhile', async () => {
    world = await World.start('shared');
    await world.pass(500);
    const before = world.current;
    await world.agent.drain({ service: SERVICE, producer: nameOf(before) }, true);
    await world.pass(TTL_MS, () => expect(world.current).toBeDefined());
    expect(world.current).not.toBe(before);
  });

  test.each(['shared', 'exclusive'] as const)(
    'that was taken away is left within an interval of echoes (%s)',
    async (mode) => {
      world = await World.start(mode);
      await world.pass(500);
      const { leaseId } = world.gateway.view();
      await world.agent.revoke(leaseId!);
      await world.pass(PROBE_MS, () => mode === 'shared' && expect(world.current).toBeDefined());
      expect(world.gateway.view()).toMatchObject({ state: 'leased', counters: { leases: 2 } });
      expect(world.gateway.view().leaseId).not.toBe(leaseId);
      expect(world.agent.stats()).toMatchObject({ liveLeases: 1 });
    },
  );

  test('that was taken away while its agent could not be listened to is left at the next renewal', async () => {
    world = await World.start('shared');
    world.deaf = true;
    await world.gateway[Symbol.asyncDispose]();
    world.gateway = world.lease(2);
    await world.pass(500);
    const { leaseId } = world.gateway.view();
    await world.agent.revoke(leaseId!);
    await world.pass(PROBE_MS);
    expect(world.gateway.view().leaseId).toBe(leaseId);
    await world.pass(TTL_MS);
    expect(world.gateway.view()).toMatchObject({ state: 'leased' });
    expect(world.gateway.view().leaseId).not.toBe(leaseId);
  });

  test('whose daemon died on a living host is left once the agent misses its heartbeats', async () => {
    world = await World.start('shared', 1, addressOf, SILENT_AFTER_MS);
    await world.passHeard(2_000);
    const before = world.current!;
    expect(before).toBeDefined();
    world.mute.add(nameOf(before));
    await world.passHeard(SILENT_AFTER_MS + PROBE_MS + HEARTBEAT_MS, () =>
      expect(world.current).toBeDefined(),
    );
    expect(world.current).not.toBe(before);
    expect(world.gateway.view().counters.echoesLost).toBe(0);
    // It comes back, and may be chosen again; what is leased stays.
    const { leaseId } = world.gateway.view();
    world.mute.clear();
    await world.passHeard(5_000);
    expect(world.gateway.view()).toMatchObject({ leaseId, state: 'leased' });
  });

  test('stays where the agent hears nobody at all: that is the agent then', async () => {
    world = await World.start('shared', 1, addressOf, SILENT_AFTER_MS);
    await world.passHeard(2_000);
    const { leaseId } = world.gateway.view();
    for (const each of GATEWAYS) world.mute.add(each);
    await world.passHeard(4 * SILENT_AFTER_MS);
    expect(world.gateway.view()).toMatchObject({ leaseId, state: 'leased' });
  });

  test('of a shared service stays beyond its lease while nobody renews it and it answers; said once', async () => {
    world = await World.start('shared');
    await world.pass(500);
    world.agentDown = true;
    const before = world.current;
    await world.pass(20 * TTL_MS, () => expect(world.current).toBe(before));
    expect(world.gateway.view()).toMatchObject({ state: 'kept', error: 'UNAVAILABLE: nobody answers' });
    expect(world.warnings).toEqual(['no gateway is leased; asked for again']);
    expect(world.gateway.counters.refused).toBeLessThan(40);
    world.dead.add(nameOf(before));
    await world.pass(10_000);
    expect(world.current).toBeUndefined();
    world.agentDown = false;
    await world.pass(7_000);
    expect(world.gateway.view().state).toBe('leased');
    expect(world.gateway.view().error).toBeUndefined();
  });

  test('of an exclusive service goes with its lease', async () => {
    world = await World.start('exclusive');
    await world.pass(500);
    world.agentDown = true;
    await world.pass(1.2 * TTL_MS, () => {
      if (world.current !== undefined) expect(world.gateway.view().state).toBe('leased');
    });
    expect(world.current).toBeUndefined();
  });

  test('without a tunnel address, or that the switch refuses, is reported and not used', async () => {
    world = await World.start('shared', 1, (name) => (name === 'g1' ? '10.0.0.1' : `${name}.example`));
    await world.pass(30_000);
    expect(world.current).toBe('10.0.0.1');
    await world[Symbol.asyncDispose]();
    world = await World.start('shared');
    world.refusesPlane = true;
    await world.pass(2_000);
    expect(world.gateway.view()).toMatchObject({ state: 'searching', error: 'the plane refuses' });
    world.refusesPlane = false;
    await world.pass(7_000);
    expect(world.gateway.view()).toMatchObject({ state: 'leased' });
  });

  test('is given back at the end', async () => {
    world = await World.start('shared');
    await world.pass(500);
    const ended = world.gateway[Symbol.asyncDispose]();
    await world.pass(100);
    await ended;
    expect(world.current).toBeUndefined();
    expect(world.agent.stats()).toMatchObject({ liveLeases: 0 });
  });

  test.each(['shared', 'exclusive'] as const)(
    'keeps its promises through random histories (%s)',
    {
      timeout: 180_000,
    },
    async (mode) => {
      const gateway = fc.constantFrom(...GATEWAYS);
      const events = fc.oneof(
        fc.record({ kind: fc.constantFrom('die', 'live', 'drain', 'undrain'), gateway }),
        fc.record({ kind: fc.constantFrom('agent-down', 'agent-up', 'revoke'), gateway }),
        fc.record({ kind: fc.constant('pass'), ms: fc.integer({ min: 50, max: 6_000 }) }),
      );
      const histories = fc.array(events, { minLength: 4, maxLength: 16 });
      await fc.assert(
        fc.asyncProperty(histories, fc.integer(), async (history, seed) => {
          world = await World.start(mode, seed);
          let answering: string | undefined;
          const revivedMs = new Map<string, number>();
          /** Long enough for its last echoes to say so, too: a verdict takes five. */
          const answers = (name: string) =>
            !world.dead.has(name) && world.clock.monotonicMs() - (revivedMs.get(name) ?? 0) > 6 * PROBE_MS;
          const look = () => {
            const { current, gateway: leased } = world;
            // What the plane has is what `show` tells; of an exclusive service never without a lease.
            if (current !== undefined) expect(leased.view().address).toBe(current);
            if (mode === 'exclusive' && current !== undefined) expect(leased.view().state).toBe('leased');
            // A shared gateway that answers is never taken away for nothing.
            if (mode === 'shared' && answering !== undefined) expect(current).toBeDefined();
            answering = current !== undefined && answers(nameOf(current)) ? current : undefined;
          };
          for (const event of history) {
            if ('ms' in event) {
              await world.pass(event.ms, look);
              continue;
            }
            const producer = { service: SERVICE, producer: event.gateway };
            if (event.kind === 'die') {
              world.dead.add(event.gateway);
              answering = undefined;
            } else if (event.kind === 'live') {
              if (world.dead.delete(event.gateway)) revivedMs.set(event.gateway, world.clock.monotonicMs());
            } else if (event.kind === 'drain') await world.agent.drain(producer, true);
            else if (event.kind === 'undrain') await world.agent.drain(producer, false);
            else if (event.kind === 'revoke') {
              const { leaseId } = world.gateway.view();
              await world.agent.revoke(leaseId ?? '').catch(() => undefined);
            } else world.agentDown = event.kind === 'agent-down';
            await world.pass(STEP_MS, look);
          }
          // Once all is well again it has one, and one lease only.
          world.agentDown = false;
          world.dead.clear();
          for (const producer of GATEWAYS) await world.agent.drain({ service: SERVICE, producer }, false);
          await world.pass(15_000);
          expect(world.gateway.view()).toMatchObject({ state: 'leased', address: world.current });
          expect(world.gateway.view().error).toBeUndefined();
          expect(world.agent.stats()).toMatchObject({ liveLeases: 1 });
          await world[Symbol.asyncDispose]();
        }),
        { numRuns: Number(process.env.PENSTOCK_GATEWAY_HISTORIES ?? 25) },
      );
      world = await World.start(mode);
    },
  );
});

describe('a window of echoes', () => {
  test('tells loss and round-trip times; of a failing endpoint only what made it so', () => {
    const window = new EchoWindow();
    expect(window.report()).toMatchObject({ operations: 0, errors: 0, windowMs: 0 });
    for (let i = 1; i <= 100; i += 1) window.add(i * 10, i);
    expect(window.facts()).toEqual({ sent: 100, lost: 0, rttP50Ms: 50, rttP99Ms: 99, windowMs: 990 });
    window.add(1_010, undefined);
    window.add(1_020, undefined);
    expect(window.failing).toBe(false);
    expect(window.report()).toMatchObject({ operations: 102, errors: 2 });
    window.add(1_030, 5);
    window.add(1_040, undefined);
    expect(window.failing).toBe(true);
    expect(window.report()).toMatchObject({ operations: 5, errors: 3, latencyP50Ms: 5, windowMs: 40 });
    for (let i = 0; i < 3; i += 1) window.add(1_050 + i, 1);
    expect(window.failing).toBe(false);
    for (let i = 0; i < 500; i += 1) window.add(2_000 + i, 1);
    expect(window.facts()).toMatchObject({ sent: 120, lost: 0 });
  });
});
