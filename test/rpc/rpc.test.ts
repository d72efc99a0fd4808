// The admin protocol, both ends over a real socket.
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { request } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { call } from '../../src/rpc/client.js';
import { RpcError } from '../../src/rpc/protocol.js';
import { AdminServer, type Method } from '../../src/rpc/server.js';
import { silentLogger } from '../../src/telemetry/logger.js';
import { Metrics } from '../../src/telemetry/metrics.js';

let directory: string;
let socketPath: string;
let server: AdminServer;
/** `wait` has been called. */
let begun: Promise<unknown>;
let aborted: Promise<unknown>;

const metrics = new Metrics();
metrics.registerSource('demo', () => ({ answers: 42 }));

const methods: Record<string, Method> = {
  echo: { call: async (parameters) => parameters },
  hello: { safe: true, call: async () => ({ hello: 'you' }) },
  count: {
    call: async (_, { onProgress }) => {
      for (let i = 1; i <= 3; i += 1) {
        onProgress({ i });
        await new Promise((resolve) => setTimeout(resolve, 120));
      }
      return { counted: 3 };
    },
  },
  list: {
    call: async (_, { sendItems }) => {
      for (let from = 0; from < 100; from += 1) await sendItems(Array(1000).fill('x'.repeat(100)));
      return { listed: 100_000 };
    },
  },
  refuse: {
    call: async () => {
      throw Object.assign(new Error('no space left; free some'), { code: 'ENOSPC' });
    },
  },
};

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'penstock-rpc-'));
  socketPath = join(directory, 'socket');
  let sawCall: (value: unknown) => void;
  let sawAbort: (reason: unknown) => void;
  begun = new Promise((resolve) => {
    sawCall = resolve;
  });
  aborted = new Promise((resolve) => {
    sawAbort = resolve;
  });
  const wait: Method = {
    call: (_, { signal }) =>
      new Promise((_resolve, reject) => {
        sawCall(undefined);
        signal.addEventListener('abort', () => {
          sawAbort(signal.reason);
          reject(signal.reason);
        });
      }),
  };
  server = await AdminServer.listen({
    socketPath,
    methods: async () => ({ ...methods, wait }),
    metrics,
    logger: silentLogger,
  });
});

afterEach(async () => {
  await server[Symbol.asyncDispose]();
  rmSync(directory, { recursive: true });
});

test('parameters go in, the result comes out', async () => {
  expect(await call(socketPath, 'echo', { deep: [1, { a: 'ü' }] })).toEqual({ deep: [1, { a: 'ü' }] });
});

test('methods are loaded once, before the first call or by it', async () => {
  let loads = 0;
  await using other = await AdminServer.listen({
    socketPath: `${socketPath}-other`,
    methods: async () => {
      loads += 1;
      return methods;
    },
    metrics,
    logger: silentLogger,
  });
  expect(loads).toBe(0);
  expect(await other.methods()).toBe(methods);
  await Promise.all([1, 2].map((value) => call(`${socketPath}-other`, 'echo', { value })));
  expect(loads).toBe(1);
});

test('progress arrives while the work goes on', async () => {
  const seen: unknown[] = [];
  expect(await call(socketPath, 'count', {}, { onProgress: (progress) => seen.push(progress) })).toEqual({
    counted: 3,
  });
  expect(seen).toEqual([{ i: 1 }, { i: 2 }, { i: 3 }]);
});

test('an error keeps its code and message', async () => {
  const failure = call(socketPath, 'refuse', {});
  await expect(failure).rejects.toThrow('no space left; free some');
  await expect(failure).rejects.toMatchObject({ code: 'ENOSPC' });
});

test('a method that does not exist is NO_METHOD, a socket that does not is NOT_RUNNING', async () => {
  await expect(call(socketPath, 'nothing', {})).rejects.toMatchObject({ code: 'NO_METHOD' });
  await expect(call(`${socketPath}-other`, 'echo', {})).rejects.toMatchObject({ code: 'NOT_RUNNING' });
});

test('a caller that goes away aborts the work', async () => {
  const abort = new AbortController();
  const waiting = call(socketPath, 'wait', {}, { signal: abort.signal });
  void begun.then(() => abort.abort(new Error('changed my mind')));
  await expect(waiting).rejects.toThrow('changed my mind');
  expect(await aborted).toMatchObject({ code: 'DISCONNECTED' });
});

test('stopping the server ends running work with an error, not with silence', async () => {
  const waiting = call(socketPath, 'wait', {});
  const failure = expect(waiting).rejects.toBeInstanceOf(RpcError);
  await begun;
  await server[Symbol.asyncDispose]();
  await failure;
});

test('only the owner may connect', () => {
  expect(statSync(socketPath).mode & 0o777).toBe(0o600);
});

test('curl can read safe methods and metrics, and nothing else with GET', async () => {
  expect(await get('/v1/hello')).toEqual({ status: 200, body: '{"hello":"you"}\n' });
  expect((await get('/metrics')).body).toContain('penstock_demo_answers 42');
  expect((await get('/v1/echo')).status).toBe(405);
  expect((await get('/v2/hello')).status).toBe(404);
});

function get(path: string): Promise<{ status: number | undefined; body: string }> {
  return new Promise((resolve, reject) => {
    const sent = request({ socketPath, path }, async (response) => {
      let body = '';
      for await (const chunk of response) body += chunk;
      resolve({ status: response.statusCode, body });
    });
    sent.once('error', reject);
    sent.end();
  });
}

test('an answer too long for one line comes in parts, none is lost, and the sender waits for a slow caller', async () => {
  let count = 0;
  const onItems = async (items: readonly unknown[]) => {
    count += items.length;
    if (count % 10_000 === 0) await new Promise((resolve) => setTimeout(resolve, 10));
  };
  expect(await call(socketPath, 'list', {}, { onItems })).toEqual({ listed: 100_000 });
  const broken = new Error('the disk is full');
  await expect(call(socketPath, 'list', {}, { onItems: () => Promise.reject(broken) })).rejects.toBe(broken);
  expect(count).toBe(100_000);
});

test.each([
  ['asks nothing', ''],
  ['does not end its question', 'POST /v1/echo HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{'],
  ['does not read its answer', 'POST /v1/list HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}'],
])(
  'who %s keeps no server from stopping',
  async (_who, text) => {
    const socket = connect(socketPath);
    socket.pause();
    await new Promise<void>((resolve) => socket.once('connect', resolve));
    socket.write(text);
    await new Promise((resolve) => setTimeout(resolve, 100));
    await server[Symbol.asyncDispose]();
    socket.destroy();
  },
  5000,
);
