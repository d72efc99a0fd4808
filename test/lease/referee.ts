// Judges what consumers in any number of processes did with exclusive producers, by one clock for all. A hold lasts from its first use
// until its holder said that it ended, or, when the holder could not say so any more, until the time up to which it believed in it.
//
//   token 7   |use..use....believed until|
//   token 8                               |use..use.....|          holds in the order of their tokens never overlap, and
//   token 9                                    |use             <── this one does: two held the producer at this instant
//
// Then every history of the resource behind the producer is that of one holder after another: tokens are its linearisation.
import type { Said } from './processes.js';

/** A consumer's line: at `atMs` it used `used` and believed to hold it until `untilMs`. Milliseconds of the host's monotonic clock. */
export interface Use extends Said {
  readonly used: string;
  readonly token: number;
  readonly consumer: string;
  readonly atMs: number;
  readonly untilMs: number;
}

interface Hold {
  readonly token: number;
  readonly consumer: string;
  readonly fromMs: number;
  readonly untilMs: number;
}

export function usesIn(said: readonly Said[]): Use[] {
  return said.filter((line): line is Use => line.used !== undefined);
}

/** Throws with the two holds that contradict each other; answers how many uses were judged. */
export function judge(said: readonly Said[]): number {
  const failure = said.find((line) => line.failed !== undefined);
  if (failure !== undefined) throw new Error(failure.failed);
  const uses = usesIn(said);
  for (const [producer, holds] of holdsIn(uses, said)) {
    const inOrder = [...holds.values()].sort((a, b) => a.token - b.token);
    let before: Hold | undefined;
    for (const hold of inOrder) {
      if (before !== undefined && hold.fromMs < before.untilMs)
        throw new Error(`${producer} was held by two: ${told(before)}; ${told(hold)}`);
      before = hold;
    }
  }
  return uses.length;
}

/** By producer, by token. */
function holdsIn(uses: readonly Use[], said: readonly Said[]): Map<string, Map<number, Hold>> {
  const producers = new Map<string, Map<number, Hold>>();
  for (const { used, token, consumer, atMs, untilMs } of uses) {
    const holds = producers.get(used) ?? new Map<number, Hold>();
    producers.set(used, holds);
    const known = holds.get(token) ?? { token, consumer, fromMs: atMs, untilMs };
    if (known.consumer !== consumer)
      throw new Error(`token ${token} of ${used} was given to ${known.consumer} and to ${consumer}`);
    const [fromMs, last] = [Math.min(known.fromMs, atMs), Math.max(known.untilMs, untilMs)];
    holds.set(token, { ...known, fromMs, untilMs: last });
  }
  for (const { ended, token = 0, atMs = 0 } of said) {
    const holds = ended === undefined ? undefined : producers.get(ended);
    const hold = holds?.get(token);
    // Who was asleep says so late: it had stopped to believe before.
    if (hold !== undefined) holds!.set(token, { ...hold, untilMs: Math.min(hold.untilMs, atMs) });
  }
  return producers;
}

function told({ token, consumer, fromMs, untilMs }: Hold): string {
  return `${consumer} from ${fromMs.toFixed(1)} to ${untilMs.toFixed(1)} ms with token ${token}`;
}
