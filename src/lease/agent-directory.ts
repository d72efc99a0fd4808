// Several agents as one for whoever asks them: finds the owner of a producer, an agent with producers of a service, and another one
// when the one at hand does not answer.
import type { AgentApi, AgentInfo, AgentLocation } from './contract.js';
import { LeaseError } from './errors.js';

export type Connect = (address: string) => AgentApi;

const HOPS_MAX = 4;
/** What is known of the agents is believed for so long, and for less after an agent had nothing to give. */
const FRESH_MS = 5_000;
const DOUBTED_MS = 500;

export class AgentDirectory {
  readonly #seeds: readonly AgentApi[];
  readonly #connect: Connect | undefined;
  readonly #connected = new Map<string, AgentApi>();
  #agents: readonly AgentInfo[] = [];
  #agentsMs = Number.NEGATIVE_INFINITY;
  #doubted = false;

  /** `seeds`: whom to ask first. `connect`: how to reach an agent that was named by another; absent: the seeds are all there is. */
  constructor(seeds: readonly AgentApi[], connect?: Connect) {
    if (seeds.length === 0) throw new LeaseError('BAD_REQUEST', 'no agent is given');
    this.#seeds = seeds;
    this.#connect = connect;
  }

  /** Agents that own producers of the service, drawn by their weight; the seeds when nobody knows. */
  async forService(service: string, nowMs: number, fraction: number): Promise<AgentApi[]> {
    await this.#refresh(nowMs);
    const candidates = this.#agents
      .map((info) => ({ api: this.#reach(info), weight: info.weights[service] ?? 0 }))
      .filter((each): each is { api: AgentApi; weight: number } => each.api !== undefined && each.weight > 0);
    if (candidates.length === 0) return [...this.#seeds];
    let rest = fraction * candidates.reduce((sum, { weight }) => sum + weight, 0);
    let first = candidates.length - 1;
    for (const [index, { weight }] of candidates.entries()) {
      rest -= weight;
      if (rest >= 0) continue;
      first = index;
      break;
    }
    return candidates.map((_, index) => candidates[(first + index) % candidates.length]!.api);
  }

  /** Does `work` at the agent that owns what it is about, starting with `at`; answers which agent that was. */
  async atOwner<T>(
    at: AgentApi | undefined,
    work: (api: AgentApi) => Promise<T>,
  ): Promise<{ readonly api: AgentApi; readonly value: T }> {
    let last: unknown;
    for (const start of at === undefined ? this.#seeds : [at, ...this.#seeds]) {
      let api = start;
      for (let hop = 0; hop < HOPS_MAX; hop += 1) {
        try {
          return { api, value: await work(api) };
        } catch (error) {
          last = error;
          const owner = error instanceof LeaseError && error.code === 'NOT_OWNER' ? error.owner : undefined;
          const next = owner && this.#reach(owner);
          if (next === undefined) break;
          api = next;
        }
      }
      if (!isElsewhere(last)) break;
    }
    throw last;
  }

  /** What was learnt about the agents may be outdated. */
  doubt(): void {
    this.#doubted = true;
  }

  async #refresh(nowMs: number): Promise<void> {
    if (nowMs - this.#agentsMs < (this.#doubted ? DOUBTED_MS : FRESH_MS)) return;
    this.#doubted = false;
    for (const api of new Set([...this.#seeds, ...this.#connected.values()])) {
      try {
        this.#agents = await api.agents();
        this.#agentsMs = nowMs;
        return;
      } catch (error) {
        if (!isElsewhere(error)) throw error;
      }
    }
    this.#agents = [];
  }

  #reach({ address }: AgentLocation): AgentApi | undefined {
    if (address === '' || this.#connect === undefined)
      return this.#seeds.length === 1 ? this.#seeds[0] : undefined;
    const known = this.#connected.get(address);
    if (known !== undefined) return known;
    const api = this.#connect(address);
    this.#connected.set(address, api);
    return api;
  }
}

/** Another agent may do better. */
export function isElsewhere(error: unknown): boolean {
  if (!(error instanceof LeaseError)) return false;
  return ['UNAVAILABLE', 'CLOSED', 'NOT_OWNER', 'FENCED'].includes(error.code);
}
