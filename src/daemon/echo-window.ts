// What echoes tell of the far end of a tunnel: the last of them, a verdict, and the report that the next lease request takes along.
import type { ConsumerReport } from '../lease/status.js';

export interface EchoFacts {
  readonly sent: number;
  readonly lost: number;
  /** Milliseconds; absent while none was answered. */
  readonly rttP50Ms?: number;
  readonly rttP99Ms?: number;
  readonly windowMs: number;
}

interface Sample {
  readonly atMs: number;
  /** Undefined: lost. */
  readonly rttMs: number | undefined;
}

const SAMPLES_MAX = 120;
/** Of so many last echoes, so many lost: it is not there. One late answer more or less decides nothing. */
const VERDICT_SAMPLES = 5;
const VERDICT_LOST = 3;

export class EchoWindow {
  readonly #samples: Sample[] = [];

  add(atMs: number, rttMs: number | undefined): void {
    this.#samples.push({ atMs, rttMs });
    if (this.#samples.length > SAMPLES_MAX) this.#samples.shift();
  }

  get failing(): boolean {
    return factsOf(this.#samples.slice(-VERDICT_SAMPLES)).lost >= VERDICT_LOST;
  }

  facts(): EchoFacts {
    return factsOf(this.#samples);
  }

  /** Of a failing endpoint what made it so, not the good minute before. */
  report(): ConsumerReport {
    const spoken = this.failing ? this.#samples.slice(-VERDICT_SAMPLES) : this.#samples;
    const { sent, lost, rttP50Ms = 0, rttP99Ms = 0, windowMs } = factsOf(spoken);
    return {
      ...{ operations: sent, errors: lost, rejected: 0 },
      ...{ latencyP50Ms: rttP50Ms, latencyP99Ms: rttP99Ms, windowMs },
    };
  }
}

function factsOf(samples: readonly Sample[]): EchoFacts {
  const times = samples
    .map(({ rttMs }) => rttMs)
    .filter((rttMs) => rttMs !== undefined)
    .sort((a, b) => a - b);
  const rank = (share: number) => times[Math.ceil(share * times.length) - 1]!;
  return {
    sent: samples.length,
    lost: samples.length - times.length,
    ...(times.length === 0 ? {} : { rttP50Ms: rank(0.5), rttP99Ms: rank(0.99) }),
    windowMs: samples.length === 0 ? 0 : samples.at(-1)!.atMs - samples[0]!.atMs,
  };
}
