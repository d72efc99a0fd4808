// A child process with a TypeScript entry: compiled once for this test run, started, listened to line by line.

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { packageRoot } from '../../bindings/load.js';

/** Compiles the project to a directory of its own below build/; `remove` takes it away again. */
export function compile(): { entry: (source: string) => string; remove: () => void } {
  const root = packageRoot();
  mkdirSync(join(root, 'build'), { recursive: true });
  const out = mkdtempSync(join(root, 'build', 'test-js-'));
  const options = ['--noCheck', '--incremental', 'false', '--declaration', 'false', '--outDir', out];
  execFileSync(join(root, 'node_modules/.bin/tsc'), ['-p', root, ...options]);
  return {
    entry: (source) => join(out, source.replace(/\.ts$/, '.js')),
    remove: () => rmSync(out, { recursive: true, force: true }),
  };
}

export interface Child {
  readonly process: ChildProcess;
  /** The next line of its standard output; undefined at the end. */
  line(): Promise<string | undefined>;
  /** Reads lines up to this one; fails when the output ends before it. */
  until(line: string): Promise<void>;
  kill(): Promise<void>;
}

export function start(command: string, args: readonly string[]): Child {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const line = async () => (await lines.next()).value as string | undefined;
  return {
    process: child,
    line,
    until: async (wanted) => {
      for (let said = await line(); said !== wanted; said = await line()) {
        if (said !== undefined) continue;
        await exited;
        throw new Error(`it ended (${child.signalCode ?? child.exitCode}) before it said ${wanted}`);
      }
    },
    kill: async () => {
      child.kill('SIGKILL');
      await exited;
    },
  };
}
