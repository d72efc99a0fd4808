// A group of measurements that belong together; its figures are rates, more is better.
import type { RunningPeer } from '../peers/peer.js';

export type Unit = 'MB/s' | 'ops/s';

export interface Figure {
  readonly name: string;
  readonly unit: Unit;
  readonly value: number;
}

export interface Scale {
  readonly files: number;
  readonly bytes: number;
  readonly seconds: number;
}

export interface Workload {
  readonly name: string;
  /** Once for each peer, before the rounds. */
  prepare?(peer: RunningPeer, scale: Scale): Promise<void>;
  run(peer: RunningPeer, scale: Scale, round: number): Promise<Figure[]>;
}
