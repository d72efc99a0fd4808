// Which agent owns which producer: rendezvous hashing (Thaler and Ravishankar 1998) with bounded load (Mirrokni, Thorup and
// Zadimoghaddam 2018).
//
//   each producer ranks the agents by hash(producer, agent) and goes to the first with room; an agent has room for
//   ceil((1 + slack) x producers / agents). An agent that comes or goes moves about its own share, hardly more.
import { hash32 } from './hash.js';

export const LOAD_SLACK = 0.25;

export function loadMax(producers: number, agents: number): number {
  return agents === 0 ? 0 : Math.ceil(((1 + LOAD_SLACK) * producers) / agents);
}

/** The agents in the order in which this producer prefers them. */
export function ranking(producer: string, agents: readonly string[]): string[] {
  const seed = hash32(producer);
  return agents
    .map((agent) => ({ agent, score: hash32(agent, seed) }))
    .sort((a, b) => b.score - a.score || (a.agent < b.agent ? -1 : 1))
    .map(({ agent }) => agent);
}

/** Owner by producer, the same whatever the order of the arguments. */
export function assign(producers: readonly string[], agents: readonly string[]): Map<string, string> {
  const owners = new Map<string, string>();
  if (agents.length === 0) return owners;
  const bound = loadMax(producers.length, agents.length);
  const loads = new Map(agents.map((agent) => [agent, 0]));
  const ordered = [...producers].sort((a, b) => hash32(a) - hash32(b) || (a < b ? -1 : 1));
  for (const producer of ordered) {
    const owner = ranking(producer, agents).find((agent) => loads.get(agent)! < bound)!;
    loads.set(owner, loads.get(owner)! + 1);
    owners.set(producer, owner);
  }
  return owners;
}
