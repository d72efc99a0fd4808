// Agents in one process over one coordination, on a clock that the test moves.
import { expect } from 'vitest';
import { MemoryEngine } from '../../src/kv/memory-engine.js';
import { LeaseAgent, type LeaseAgentOptions } from '../../src/lease/agent.js';
import type { AgentApi, Grant, LeaseReference, Registration } from '../../src/lease/contract.js';
import { KvCoordination } from '../../src/lease/kv-coordination.js';
import { ManualClock } from '../../src/telemetry/clock.js';
import { seededRandom } from '../../src/telemetry/random.js';

export const TTL_MS = 1000;
export const MEMBER_TTL_MS = 600;
export const SELECTOR = { ttlMs: TTL_MS, ttlJitter: 0.1, slowStartMs: 0, silentAfterMs: 60_000 };

export class AgentLab implements AsyncDisposable {
  readonly clock = new ManualClock(1_000_000);
  readonly shared = new MemoryEngine();
  readonly #running: LeaseAgent[] = [];

  readonly coordination = (): KvCoordination => new KvCoordination(this.shared, this.clock, MEMBER_TTL_MS);

  readonly start = async (name: string, options: Partial<LeaseAgentOptions> = {}): Promise<LeaseAgent> => {
    const agent = await LeaseAgent.start({
      name,
      address: `at-${name}`,
      state: new MemoryEngine(),
      coordination: this.coordination(),
      selector: SELECTOR,
      clock: this.clock,
      random: seededRandom(1),
      ...options,
    });
    this.#running.push(agent);
    return agent;
  };

  /** In steps, so that what wakes has its turn. */
  readonly settle = async (ms: number): Promise<void> => {
    for (let left = ms; left > 0; left -= 50) await this.clock.advance(Math.min(50, left));
  };

  async [Symbol.asyncDispose](): Promise<void> {
    for (const agent of this.#running) await agent[Symbol.asyncDispose]();
  }
}

export const producer = (name: string, changes: Partial<Registration> = {}): Registration => ({
  service: 'disk',
  producer: name,
  mode: 'exclusive',
  address: `10.0.0.1:${name}`,
  capacity: 1,
  ...changes,
});

export const reference = (grant: Grant, consumer = 'me'): LeaseReference => ({ ...grant, consumer });

export const ask = (agent: AgentApi, consumer = 'me', service = 'disk'): Promise<Grant> =>
  agent.request({ service, consumer });

export const refused = (code: string, message = /./): unknown =>
  expect.objectContaining({ code, message: expect.stringMatching(message) });
