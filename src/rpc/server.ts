// The listening side of the admin protocol. Knows sockets and streams; what a method does is its handler's.
import { once } from 'node:events';
import { chmodSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Logger } from '../telemetry/logger.js';
import type { Metrics } from '../telemetry/metrics.js';
import { errorLine, type Line, PARAMETERS_BYTES_MAX, PROGRESS_INTERVAL_MS, RpcError } from './protocol.js';

export interface CallContext {
  /** Aborted when the caller goes away or the server stops. */
  readonly signal: AbortSignal;
  readonly onProgress: (progress: unknown) => void;
  /** Sends parts of an answer too long for one line; resolves when the caller has room for more. */
  readonly sendItems: (items: readonly unknown[]) => Promise<void>;
}

export interface Method {
  /** May be called with GET: takes no parameters and changes nothing. */
  readonly safe?: boolean;
  /** Checks the parameters itself; throws `RpcError` BAD_PARAMETERS. */
  call(parameters: unknown, context: CallContext): Promise<unknown>;
}

export type Methods = Readonly<Record<string, Method>>;

export interface AdminServerOptions {
  readonly socketPath: string;
  /** Asked once, at the first call of any at the latest. */
  readonly methods: () => Promise<Methods>;
  readonly metrics: Metrics;
  readonly logger: Logger;
}

/** How long a stopping server waits for callers to take their answers. */
const LINGER_MS = 1000;

export class AdminServer implements AsyncDisposable {
  readonly #server: Server;
  readonly #stopping = new AbortController();
  readonly #calls = new Set<Promise<Line>>();
  #methods: Promise<Methods> | undefined;

  private constructor(private readonly options: AdminServerOptions) {
    this.#server = createServer((request, response) => {
      this.#serve(request, response).catch((error: unknown) => {
        options.logger.error({ error }, 'admin request failed');
        response.destroy();
      });
    });
  }

  /** Replaces a socket file that nobody listens on any more; whoever calls has made sure of that. */
  static async listen(options: AdminServerOptions): Promise<AdminServer> {
    const server = new AdminServer(options);
    rmSync(options.socketPath, { force: true });
    await new Promise<void>((resolve, reject) => {
      server.#server.once('error', reject);
      server.#server.listen(options.socketPath, resolve);
    });
    chmodSync(options.socketPath, 0o600);
    return server;
  }

  /** The methods; loads them, once. */
  methods(): Promise<Methods> {
    this.#methods ??= this.options.methods();
    return this.#methods;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#stopping.abort(new RpcError('DISCONNECTED', 'the daemon is stopping'));
    this.#server.closeIdleConnections();
    while (this.#calls.size > 0) await Promise.all(this.#calls);
    // Who asks nothing, or does not read what it asked for, keeps no daemon.
    const lingering = setTimeout(() => this.#server.closeAllConnections(), LINGER_MS);
    await closed;
    clearTimeout(lingering);
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { pathname } = new URL(request.url ?? '/', 'http://localhost');
    // One request a connection: closing the server then waits for running work only.
    response.setHeader('connection', 'close');
    if (request.method === 'GET' && pathname === '/metrics') {
      response.setHeader('content-type', this.options.metrics.registry.contentType);
      response.end(await this.options.metrics.text());
      return;
    }
    const name = /^\/v1\/([a-z-]+)$/.exec(pathname)?.[1];
    const method = name === undefined ? undefined : (await this.methods())[name];
    // The caller may have gone away while they were loaded.
    if (response.closed) return;
    if (method === undefined)
      return sendStatus(response, 404, new RpcError('NO_METHOD', `no such path: ${pathname}`));
    if (request.method === 'GET' && method.safe) {
      const context = {
        signal: this.#stopping.signal,
        onProgress: () => undefined,
        sendItems: async () => undefined,
      };
      const line = await this.#outcome(method, {}, context);
      if ('result' in line) return sendJson(response, 200, line.result);
      return sendJson(response, 500, line);
    }
    if (request.method !== 'POST')
      return sendStatus(
        response,
        405,
        new RpcError('NO_METHOD', `${pathname} takes POST, not ${request.method}`),
      );
    await this.#stream(method, request, response);
  }

  async #stream(method: Method, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const gone = new AbortController();
    response.once('close', () => gone.abort(new RpcError('DISCONNECTED', 'the caller went away')));
    let parameters: unknown;
    try {
      parameters = await readJson(request);
    } catch (error) {
      return sendStatus(response, 400, error);
    }
    response.setHeader('content-type', 'application/x-ndjson');
    response.flushHeaders();
    const send = (line: Line) => response.write(`${JSON.stringify(line)}\n`);
    let nextProgressMs = 0;
    const onProgress = (progress: unknown) => {
      const now = performance.now();
      if (now < nextProgressMs || gone.signal.aborted) return;
      nextProgressMs = now + PROGRESS_INTERVAL_MS;
      send({ progress });
    };
    const signal = AbortSignal.any([gone.signal, this.#stopping.signal]);
    const sendItems = async (items: readonly unknown[]) => {
      if (!send({ items })) await once(response, 'drain', { signal });
    };
    send(await this.#outcome(method, parameters, { signal, onProgress, sendItems }));
    response.end();
  }

  /** Never rejects. */
  async #outcome(method: Method, parameters: unknown, context: CallContext): Promise<Line> {
    const call = outcome(method, parameters, context);
    this.#calls.add(call);
    try {
      return await call;
    } finally {
      this.#calls.delete(call);
    }
  }
}

async function outcome(method: Method, parameters: unknown, context: CallContext): Promise<Line> {
  try {
    return { result: (await method.call(parameters, context)) ?? null };
  } catch (error) {
    return errorLine(error);
  }
}

async function readJson(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > PARAMETERS_BYTES_MAX) throw new RpcError('BAD_PARAMETERS', 'the parameters exceed 1 MiB');
    chunks.push(chunk);
  }
  const text = Buffer.concat(chunks).toString('utf8');
  try {
    return text === '' ? {} : JSON.parse(text);
  } catch {
    throw new RpcError('BAD_PARAMETERS', 'the parameters are not JSON');
  }
}

function sendStatus(response: ServerResponse, status: number, error: unknown): void {
  sendJson(response, status, errorLine(error));
}

function sendJson(response: ServerResponse, status: number, value: unknown): void {
  response.statusCode = status;
  response.setHeader('content-type', 'application/json');
  response.end(`${JSON.stringify(value)}\n`);
}
