// A world for the command line in a test: a scratch directory, captured output, a provider without FUSE, signals on demand.
import { mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Context } from '../../src/cli/context.js';
import { run } from '../../src/cli/run.js';
import { RuntimeDirectory } from '../../src/daemon/runtime-directory.js';
import { systemClock } from '../../src/telemetry/clock.js';
import { ProviderDouble } from './volume-double.js';

export interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

export class CliWorld {
  readonly directory = realpathSync(mkdtempSync(join(tmpdir(), 'penstock-cli-')));
  readonly environment = {
    PENSTOCK_RUNTIME_DIR: join(this.directory, 'run'),
    XDG_STATE_HOME: join(this.directory, 'state'),
  };
  readonly provider = new ProviderDouble();
  terminal = false;
  #listeners = new Set<() => void>();
  #outputs: string[] = [];

  /** What has been written to standard output by every command so far. */
  get output(): string {
    return this.#outputs.join('');
  }

  async run(...argv: string[]): Promise<Outcome> {
    let out = '';
    let err = '';
    const context: Context = {
      stdout: {
        write: (text) => {
          out += text;
          this.#outputs.push(text);
        },
      },
      stderr: {
        isTTY: this.terminal,
        write: (text) => {
          err += text;
        },
      },
      environment: this.environment,
      directory: this.directory,
      clock: systemClock,
      entry: '/nonexistent',
      provider: async () => this.provider,
      runtime: () => RuntimeDirectory.open(this.environment),
      writeBytes: async (bytes) => {
        out += Buffer.from(bytes).toString('latin1');
      },
      onStopSignal: (listener) => {
        this.#listeners.add(listener);
        return () => this.#listeners.delete(listener);
      },
    };
    const code = await run(argv, context);
    return { code, out, err };
  }

  /** Starts `argv` (a daemon) and resolves once it has printed; the promise in it is its end. */
  async serve(...argv: string[]): Promise<{ readonly ended: Promise<Outcome> }> {
    const before = this.#outputs.length;
    const ended = this.run(...argv);
    await Promise.race([
      ended,
      (async () => {
        while (this.#outputs.length === before) await new Promise((resolve) => setTimeout(resolve, 5));
      })(),
    ]);
    return { ended };
  }

  signal(): void {
    for (const listener of [...this.#listeners]) listener();
  }

  /** A signal that only the command that began to listen last hears. */
  signalLast(): void {
    [...this.#listeners].at(-1)?.();
  }

  remove(): void {
    rmSync(this.directory, { recursive: true });
  }
}
