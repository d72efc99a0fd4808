// Real processes for the tests of the lease agent: daemons with the role, parties of producers and consumers, a line that can be cut.
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { packageRoot } from '../../bindings/load.js';
import type { TlsFiles } from '../../src/lease/grpc/credentials.js';
import { WallClock } from '../support/wall-clock.js';

/** A busy machine is slow; a quiet one is ready long before. */
const READY_MS = 45_000;
const STARTED_MS = 120_000;

/** The `lease` section of a configuration, where the place does not decide it. */
export interface LeaseSection {
  readonly listen?: string;
  readonly [key: string]: unknown;
}

export interface PartyOptions {
  readonly timeoutMs?: number;
  readonly tls?: TlsFiles;
}

export class Place implements AsyncDisposable {
  readonly directory = mkdtempSync(join(tmpdir(), 'penstock-lease-'));
  readonly #children = new Set<ChildProcess>();
  readonly #lines = new Set<Line>();

  path(name: string): string {
    return join(this.directory, name);
  }

  /** `penstock up` with a lease agent; listening when it resolves. */
  async daemon(name: string, lease: LeaseSection, clock?: WallClock): Promise<Daemon> {
    const config = this.path(`${name}.yaml`);
    const { listen = `unix:${this.path(`${name}.sock`)}` } = lease;
    const all = { name, store: `file:${this.path(`${name}-store`)}`, ...lease, listen };
    writeFileSync(
      config,
      JSON.stringify({ log: { level: 'warn', file: this.path(`${name}.log`) }, lease: all }),
    );
    const main = join(packageRoot(), 'dist/src/cli/main.js');
    const child = this.#spawn([main, 'up', config, '--json'], {
      PENSTOCK_RUNTIME_DIR: this.path(`run-${name}`),
      ...clock?.environment,
    });
    await firstLine(child, name);
    return new Daemon(child, listen);
  }

  party(agents: readonly string[], options: PartyOptions = {}, clock?: WallClock): Party {
    const script = join(packageRoot(), 'test/lease/party.mjs');
    return new Party(
      this.#spawn([script, JSON.stringify({ agents, ...options })], { ...clock?.environment }),
    );
  }

  async line(name: string, to: string): Promise<Line> {
    const line = await Line.open(this.path(`${name}.sock`), to.slice('unix:'.length));
    this.#lines.add(line);
    return line;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const line of this.#lines) line.close();
    await Promise.all([...this.#children].map((child) => killed(child)));
    rmSync(this.directory, { recursive: true, force: true });
  }

  #spawn(argv: readonly string[], environment: Record<string, string> = {}): ChildProcess {
    const child = spawn(process.execPath, argv, {
      cwd: packageRoot(),
      env: { ...process.env, ...environment },
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.#children.add(child);
    return child;
  }
}

export class Daemon {
  constructor(
    private readonly child: ChildProcess,
    readonly address: string,
  ) {}

  get pid(): number {
    return this.child.pid!;
  }

  kill(): Promise<void> {
    return killed(this.child);
  }

  /** SIGTERM, and its end. */
  async stop(): Promise<void> {
    await ended(this.child, 'SIGTERM');
  }

  signal(name: NodeJS.Signals): void {
    this.child.kill(name);
  }
}

export interface Said {
  readonly registered?: string;
  readonly refused?: string;
  readonly retryAfterMs?: number;
  readonly used?: string;
  readonly token?: number;
  readonly consumer?: string;
  readonly atMs?: number;
  readonly untilMs?: number;
  readonly ended?: string;
  readonly leased?: number;
  readonly held?: number;
  readonly renewals?: number;
  readonly failed?: string;
}

export class Party {
  readonly said: Said[] = [];

  constructor(private readonly child: ChildProcess) {
    createInterface({ input: child.stdout! }).on('line', (line) => this.said.push(JSON.parse(line) as Said));
  }

  tell(message: object): void {
    this.child.stdin!.write(`${JSON.stringify(message)}\n`);
  }

  kill(): Promise<void> {
    return killed(this.child);
  }

  signal(name: NodeJS.Signals): void {
    this.child.kill(name);
  }
}

/** A unix socket that passes bytes on to another one, until it is cut: then nothing passes and nothing is closed, as in a partition. */
export class Line {
  readonly address: string;
  #cut = false;
  readonly #sockets = new Set<Socket>();

  private constructor(
    private readonly server: Server,
    path: string,
  ) {
    this.address = `unix:${path}`;
  }

  static async open(path: string, to: string): Promise<Line> {
    const server = createServer();
    const line = new Line(server, path);
    server.on('connection', (near) => line.#join(near, connect(to)));
    await new Promise<void>((resolve) => server.listen(path, resolve));
    return line;
  }

  cut(): void {
    this.#cut = true;
    for (const socket of this.#sockets) socket.pause();
  }

  heal(): void {
    this.#cut = false;
    for (const socket of this.#sockets) socket.resume();
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.server.close();
  }

  #join(near: Socket, far: Socket): void {
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      this.#sockets.add(from);
      from.on('data', (bytes) => void to.write(bytes));
      from.on('error', () => to.destroy());
      from.on('close', () => {
        this.#sockets.delete(from);
        to.destroy();
      });
      if (this.#cut) from.pause();
    }
  }
}

export async function until(
  what: string,
  ready: () => boolean | Promise<boolean>,
  withinMs = READY_MS,
): Promise<void> {
  const endMs = performance.now() + withinMs;
  while (!(await ready())) {
    if (performance.now() > endMs) throw new Error(`not within ${withinMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function firstLine(child: ChildProcess, name: string): Promise<void> {
  let failure: Error | undefined;
  let ready = false;
  const early = (code: number | null) => {
    failure = new Error(`${name} ended with ${code} before it was ready`);
  };
  child.once('exit', early);
  createInterface({ input: child.stdout! }).once('line', (line) => {
    // Why it will end is said on the same stream.
    ready = !('error' in JSON.parse(line));
  });
  const isReady = () => {
    if (failure !== undefined) throw failure;
    return ready;
  };
  await until(`${name} is ready`, isReady, STARTED_MS);
  child.off('exit', early);
}

async function killed(child: ChildProcess): Promise<void> {
  await ended(child, 'SIGKILL');
  WallClock.forget(child.pid!);
}

async function ended(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = new Promise((resolve) => child.once('exit', resolve));
  child.kill(signal);
  await exit;
}
