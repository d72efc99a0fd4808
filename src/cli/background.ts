// Starts this command line again, with the same flags of V8, as a process of its own and waits until it says that it is ready.
//
//   parent ── spawn, detached, output to a log ──> child
//   parent <── one JSON line on descriptor 3: {"ready": ...} or {"error": {code, message}} ── child
//
// A child that ends without a line failed in a way it could not tell; its log is named.
import { spawn } from 'node:child_process';
import { closeSync, openSync, writeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { errorLine, RpcError } from '../rpc/protocol.js';
import type { Context } from './context.js';

const READY_DESCRIPTOR = 3;
const READY_VARIABLE = 'PENSTOCK_READY_DESCRIPTOR';

type ReadyLine =
  | { readonly ready: unknown }
  | { readonly error: { readonly code: string; readonly message: string } };

export async function startInBackground(
  context: Context,
  argv: readonly string[],
  log: string,
): Promise<unknown> {
  const output = openSync(log, 'a', 0o600);
  const child = spawn(process.execPath, [...process.execArgv, context.entry, ...argv], {
    cwd: '/',
    detached: true,
    env: { ...context.environment, [READY_VARIABLE]: String(READY_DESCRIPTOR) },
    stdio: ['ignore', output, output, 'pipe'],
  });
  closeSync(output);
  const channel = child.stdio[READY_DESCRIPTOR] as Readable;
  const forget = context.onStopSignal(() => child.kill('SIGTERM'));
  try {
    for await (const text of createInterface({ input: channel })) {
      const line = JSON.parse(text) as ReadyLine;
      if ('ready' in line) return line.ready;
      throw new RpcError(line.error.code, line.error.message);
    }
  } finally {
    forget();
    channel.destroy();
    child.unref();
  }
  throw new RpcError('DISCONNECTED', `the daemon ended before it was ready; its log is ${log}`);
}

export interface Readiness {
  ready(value: unknown): void;
  failed(error: unknown): void;
}

/** The child's side; undefined when nobody waits. */
export function readinessOf(context: Context): Readiness | undefined {
  const descriptor = Number(context.environment[READY_VARIABLE]);
  if (!Number.isInteger(descriptor)) return undefined;
  let isSaid = false;
  const say = (line: ReadyLine) => {
    // Closed once, its number is another file's: of this daemon's store or cache.
    if (isSaid) return;
    isSaid = true;
    try {
      writeSync(descriptor, `${JSON.stringify(line)}\n`);
    } catch (error) {
      // Whoever waited was killed. What was asked for stands.
      if ((error as NodeJS.ErrnoException).code !== 'EPIPE') throw error;
    } finally {
      closeSync(descriptor);
    }
  };
  return { ready: (value) => say({ ready: value }), failed: (error) => say(errorLine(error) as ReadyLine) };
}
