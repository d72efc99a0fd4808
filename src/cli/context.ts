// What a command may touch of the world around it, so that tests can give it another one.

import type { RuntimeDirectory } from '../daemon/runtime-directory.js';
import type { VolumeProvider } from '../gateway/mount-contract.js';
import type { Clock } from '../telemetry/clock.js';

export interface TextStream {
  write(text: string): unknown;
  readonly isTTY?: boolean;
}

export interface Context {
  readonly stdout: TextStream;
  readonly stderr: TextStream;
  readonly environment: NodeJS.ProcessEnv;
  /** Relative paths on the command line start here. */
  readonly directory: string;
  readonly clock: Clock;
  /** The script that a background process runs: the command line itself. */
  readonly entry: string;
  /** Loaded when a command needs it: asking a daemon takes no storage engine. */
  provider(): Promise<VolumeProvider>;
  runtime(): RuntimeDirectory;
  /** Puts bytes on standard output; settles when they are taken. */
  writeBytes(bytes: Uint8Array): Promise<void>;
  /** Calls `listener` on SIGINT and SIGTERM, and when nobody reads standard output any more, from now on; answers how to stop that. */
  onStopSignal(listener: () => void): () => void;
}

/** Wrong use of the command line: exit code 2. */
export class Misuse extends Error {
  readonly code = 'MISUSE';
}

/** The command did its work and what it found is bad: exit code 1 without a further message. */
export class Finding extends Error {
  readonly code = 'FINDING';
}
