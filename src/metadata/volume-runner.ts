// How a volume runs its operations: which node first, at what time, on whose behalf.
import type { Cluster } from './cluster.js';
import type { Context } from './context.js';
import type { Caller } from './contract.js';
import { shardOf, type VolumeKeys } from './keys.js';
import type { NameHash } from './name-hash.js';
import { Sweeper } from './sweeper.js';
import { run } from './transaction.js';
import type { Operation } from './view.js';

export interface VolumeIdentity {
  readonly name: string;
  readonly tenant: string;
  readonly id: number;
}

export abstract class VolumeRunner {
  protected readonly sweeper: Sweeper;

  constructor(
    readonly identity: VolumeIdentity,
    readonly cluster: Cluster,
    readonly keys: VolumeKeys,
    readonly names: NameHash,
  ) {
    this.sweeper = new Sweeper(cluster, keys);
  }

  protected nodeOf(ino: number): number {
    return this.cluster.map.node(shardOf(ino));
  }

  protected context(caller: Caller): Context {
    return { caller, now: this.cluster.now(), names: this.names, sweep: false };
  }

  /** Reads need no session: they change nothing. */
  protected read<T>(ino: number, operation: Operation<T>): Promise<T> {
    return run(this.cluster, this.keys, this.nodeOf(ino), undefined, operation);
  }

  protected async change<T>(ino: number, context: Context, operation: Operation<T>): Promise<T> {
    const result = await run(this.cluster, this.keys, this.nodeOf(ino), context.caller, operation);
    if (context.sweep) this.sweeper.wake();
    return result;
  }
}
