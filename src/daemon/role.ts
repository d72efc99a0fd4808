// A role is one thing that a daemon does for its host. The daemon starts the roles of its configuration, shows their status,
// and stops them; what a role is about only the role knows.
import type { OnProgress } from '../gateway/mount-contract.js';

export interface StopOptions {
  /** Finish the work that can be finished later too: publish what is dirty. */
  readonly drain: boolean;
  /** Let go even of what is in use. */
  readonly lazy?: boolean;
  readonly onProgress?: OnProgress;
  /** Aborts the draining; the role then goes on. */
  readonly signal?: AbortSignal;
}

export interface Role {
  readonly kind: 'volume' | 'lease' | 'switch';
  readonly name: string;
  status(): Promise<object>;
  stop(options: StopOptions): Promise<void>;
  /** Resolves when the role has stopped, whoever stopped it. */
  readonly ended: Promise<void>;
}
