// The calling side of the admin protocol.
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { createInterface } from 'node:readline';
import { type Line, RpcError } from './protocol.js';

export interface CallOptions {
  readonly onProgress?: (progress: unknown) => void;
  /** Told of the parts of a long answer, in order; the next is read when this settles. What it throws ends the call. */
  readonly onItems?: (items: readonly unknown[]) => Promise<void> | void;
  /** Aborting closes the connection, which aborts the work at the daemon. */
  readonly signal?: AbortSignal;
}

/** Calls `method` of the daemon that listens on `socketPath`; rejects with `RpcError`. */
export async function call<Result>(
  socketPath: string,
  method: string,
  parameters: object,
  options: CallOptions = {},
): Promise<Result> {
  const response = await connect(socketPath, method, parameters, options.signal);
  let refused = false;
  try {
    for await (const text of createInterface({ input: response, crlfDelay: Number.POSITIVE_INFINITY })) {
      const line = JSON.parse(text) as Line;
      if ('result' in line) return line.result as Result;
      if ('error' in line) throw new RpcError(line.error.code, line.error.message);
      if ('progress' in line) options.onProgress?.(line.progress);
      else {
        refused = true;
        await options.onItems?.(line.items);
        refused = false;
      }
    }
  } catch (error) {
    if (refused || error instanceof RpcError) throw error;
    if (options.signal?.aborted) throw options.signal.reason;
    throw disconnected(method, error);
  } finally {
    response.destroy();
  }
  if (options.signal?.aborted) throw options.signal.reason;
  throw disconnected(method);
}

function disconnected(method: string, cause?: unknown): RpcError {
  return new RpcError('DISCONNECTED', `the daemon went away during "${method}"; look at its log`, { cause });
}

function connect(
  socketPath: string,
  method: string,
  parameters: object,
  signal: AbortSignal | undefined,
): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const request = httpRequest(
      { socketPath, path: `/v1/${method}`, method: 'POST', ...(signal === undefined ? {} : { signal }) },
      resolve,
    );
    request.once('error', (error: NodeJS.ErrnoException) => {
      if (signal?.aborted) reject(signal.reason);
      else if (error.code === 'ENOENT' || error.code === 'ECONNREFUSED')
        reject(new RpcError('NOT_RUNNING', `no daemon listens on ${socketPath}`, { cause: error }));
      else reject(disconnected(method, error));
    });
    request.end(JSON.stringify(parameters));
  });
}
