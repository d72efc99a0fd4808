// The two-port forwarder of test/native/tools as tests use it: started in a namespace, asked for its counters, ended in
// good order or killed.
import type { ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import { ADDRESS, buildNative, type Flavour, sanitizedLauncher } from '../support/native-build.js';
import type { NetworkLab } from '../support/network-lab.js';

/** Begun when the file is loaded: a compiler has more time than a test. */
const sanitized = buildNative(ADDRESS, ['port_forwarder']);
await sanitized;

export interface QueueReport {
  readonly rx: number;
  readonly rxBytes: number;
  readonly rxSuper: number;
  readonly tx: number;
  readonly txBytes: number;
  readonly txSuper: number;
  readonly lost: number;
  readonly failures: number;
  readonly drops: Readonly<Record<string, number>>;
}

export interface PortReport {
  readonly name: string;
  readonly state: 'up' | 'blocked' | 'forward' | 'down';
  readonly mtu: number;
  readonly queues: readonly QueueReport[];
}

export class Forwarder {
  readonly #child: ChildProcess;
  readonly #lines: Interface;
  readonly #waiting: ((line: string) => void)[] = [];
  readonly #ended: Promise<string>;

  private constructor(child: ChildProcess) {
    this.#child = child;
    let errors = '';
    child.stderr!.on('data', (chunk: Buffer) => {
      errors = `${errors}${chunk}`.slice(-16_384);
    });
    this.#lines = createInterface({ input: child.stdout! });
    this.#lines.on('line', (line) => this.#waiting.shift()?.(line));
    this.#ended = new Promise((resolve) => child.once('close', (code) => resolve(`${code}: ${errors}`)));
  }

  static async start(
    lab: NetworkLab,
    space: string,
    ports: readonly [string, string],
    options: { queues?: number; flavour?: Flavour } = {},
  ): Promise<Forwarder> {
    const flavour = options.flavour ?? ADDRESS;
    const directory = flavour === ADDRESS ? await sanitized : await buildNative(flavour, ['port_forwarder']);
    const [launcher, ...before] = sanitizedLauncher();
    const argv = ['--queues', String(options.queues ?? 1), '--runtime', join(lab.directory, 'run'), ...ports];
    const forwarder = new Forwarder(
      lab.start(space, launcher!, ...before, join(directory, 'port_forwarder'), ...argv),
    );
    const first = await forwarder.#next();
    if (first !== 'ready') throw new Error(`the forwarder said "${first}"`);
    return forwarder;
  }

  async report(): Promise<[PortReport, PortReport]> {
    const line = this.#next();
    this.#child.stdin!.write('\n');
    return (JSON.parse(await line) as { ports: [PortReport, PortReport] }).ports;
  }

  /** Ends it; throws when it did not end well (a sanitizer had something to say). */
  async stop(): Promise<void> {
    this.#child.stdin!.end();
    const end = await this.#ended;
    if (!end.startsWith('0:')) throw new Error(`the forwarder ended with ${end}`);
  }

  /** SIGSTOP, SIGCONT */
  signal(name: NodeJS.Signals): void {
    this.#child.kill(name);
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#ended;
  }

  #next(): Promise<string> {
    const line = new Promise<string>((resolve) => this.#waiting.push(resolve));
    const ended = this.#ended.then((end) => {
      throw new Error(`the forwarder ended with ${end}`);
    });
    return Promise.race([line, ended]);
  }
}

/** Everything that was dropped, by reason, over the queues of both ports. */
export function dropsOf(ports: readonly PortReport[]): Record<string, number> {
  const sum: Record<string, number> = {};
  for (const queue of ports.flatMap((port) => port.queues)) {
    for (const [reason, count] of Object.entries(queue.drops)) sum[reason] = (sum[reason] ?? 0) + count;
  }
  return sum;
}
