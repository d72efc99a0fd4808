// Network namespaces for one test: named after the process so that no two tests meet, gone when the test ends, however
// it ends. Everything a test does to interfaces happens inside them.
import { type ChildProcess, execFile, execFileSync, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { promisify } from 'node:util';

let labs = 0;
const execute = promisify(execFile);

/** Echoes at a steady pace; tells the numbers of those that came back. */
const ECHOES = `
import os, select, socket, struct, sys, time
address, count, pace, patience = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
link = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
link.connect((address, 0))
identifier, sent, came, due = os.getpid() & 0xffff, 0, [], time.monotonic()
def send(number):
    total = 0x0800 + identifier + number
    total = (total & 0xffff) + (total >> 16)
    total = (total & 0xffff) + (total >> 16)
    try: link.send(struct.pack('!4H', 0x0800, ~total & 0xffff, identifier, number))
    except OSError: pass # its neighbour does not answer: it is lost
def take(seconds):
    if not select.select([link], [], [], max(0, seconds))[0]: return False
    try: icmp = link.recv(2048)[20:]
    except OSError: return True
    if icmp[0] == 0 and struct.unpack_from('!H', icmp, 4)[0] == identifier: came.append(icmp[7] + 256 * icmp[6])
    return True
while sent < count:
    send(sent)
    sent, due = sent + 1, due + pace
    while take(due - time.monotonic()): pass
while len(set(came)) < count and time.monotonic() < due + patience: take(due + patience - time.monotonic())
while take(0.1): pass # doubled ones
print(*came)`;

/** Why tests with namespaces are left out here, printed once; undefined when they run. */
export function networkUnavailable(programs: readonly string[] = []): string | undefined {
  const reason = findReason(programs);
  if (reason) process.stderr.write(`left out, because ${reason}\n`);
  return reason;
}

function findReason(programs: readonly string[]): string | undefined {
  if (process.getuid?.() !== 0) return 'network namespaces need root';
  const missing = ['ip', 'nft', ...programs].find((name) => spawnSync('which', [name]).status !== 0);
  if (missing !== undefined) return `there is no ${missing} on PATH`;
  const probe = `pst-probe-${process.pid}`;
  if (spawnSync('ip', ['netns', 'add', probe]).status !== 0) return 'network namespaces cannot be made';
  spawnSync('ip', ['netns', 'delete', probe]);
  return undefined;
}

export class NetworkLab implements AsyncDisposable {
  /** For journals and the like. */
  readonly directory = mkdtempSync(join(tmpdir(), 'penstock-lab-'));
  readonly #prefix = `pst${process.pid}-${++labs}`;
  readonly #spaces: string[] = [];
  readonly #children: ChildProcess[] = [];

  constructor(...names: readonly string[]) {
    for (const name of names) {
      execFileSync('ip', ['netns', 'add', this.space(name)]);
      this.#spaces.push(this.space(name));
      this.ip(name, 'link set lo up');
    }
  }

  space(name: string): string {
    return `${this.#prefix}-${name}`;
  }

  path(name: string): string {
    return `/run/netns/${this.space(name)}`;
  }

  /** `ip -n SPACE ...`, words separated by blanks; answers its output. */
  ip(name: string, words: string): string {
    return execFileSync('ip', ['-n', this.space(name), ...words.split(' ')], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  }

  /**
   * The command that runs a program inside. Not `ip netns exec`: that makes a mount namespace too, whose copies of the volumes
   * mounted by tests beside this one keep them alive after their umount.
   */
  #inside(name: string, program: string, argv: readonly string[]): [string, string[]] {
    return ['nsenter', [`--net=${this.path(name)}`, '--', program, ...argv]];
  }

  /** Runs a program inside; throws with its output when it fails. */
  async run(name: string, program: string, ...argv: readonly string[]): Promise<string> {
    try {
      const { stdout } = await execute(...this.#inside(name, program, argv), {
        timeout: 60_000,
        maxBuffer: 16 << 20,
      });
      return stdout;
    } catch (error) {
      const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string };
      throw new Error(`${program} ${argv.join(' ')} in ${name}: ${stdout}${stderr}`.trim());
    }
  }

  /**
   * The numbers of those of `count` echoes that are answered, in the order of the answers. ping waits two round trips for the last
   * of them, which on a busy machine is too short; here it may come within `patienceMs`.
   */
  async echoes(
    name: string,
    address: string,
    count: number,
    { paceMs = 20, patienceMs = 10_000 } = {},
  ): Promise<number[]> {
    const argv = [address, count, paceMs / 1000, patienceMs / 1000].map(String);
    const numbers = (await this.run(name, 'python3', '-c', ECHOES, ...argv)).trim();
    return numbers === '' ? [] : numbers.split(' ').map(Number);
  }

  /** Starts a program inside and leaves it running until the lab ends. */
  start(name: string, program: string, ...argv: readonly string[]): ChildProcess {
    const child = spawn(...this.#inside(name, program, argv), {
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    this.#children.push(child);
    return child;
  }

  /** An iperf3 server that listens until the lab ends. */
  async serveIperf(name: string): Promise<void> {
    const server = this.start(name, 'iperf3', '-s', '--forceflush');
    await lineOf(server, /listening/);
  }

  /** What iperf3's client reports; throws with the report when there is no end in it, which is no failure to iperf3. */
  async iperf(name: string, server: string, ...options: readonly string[]): Promise<IperfReport> {
    const text = await this.run(name, 'iperf3', '-J', '-c', server, ...options);
    const report = JSON.parse(text) as IperfReport;
    if (report.end.sum_received === undefined && report.end.sum === undefined)
      throw new Error(`iperf3 from ${name} to ${server} ${options.join(' ')}: ${text}`);
    return report;
  }

  /** Packets that an interface has received. */
  received(name: string, link: string): number {
    const [facts] = JSON.parse(this.ip(name, `-j -s link show ${link}`)) as [
      { stats64: { rx: { packets: number } } },
    ];
    return facts.stats64.rx.packets;
  }

  /** A kernel counter of the namespace, such as TcpInCsumErrors. */
  async counter(name: string, counter: string): Promise<number> {
    const text = await this.run(name, 'nstat', '-asz', counter);
    return Number(new RegExp(`^${counter}\\s+(\\d+)`, 'm').exec(text)?.[1] ?? Number.NaN);
  }

  /** A UDP run to the server in `name`: its packets, and those that were lost on the way, not for want of room in the server's socket. */
  async lossOf(name: string, run: () => Promise<IperfReport>): Promise<{ packets: number; lost: number }> {
    const noRoom = async () =>
      (await this.counter(name, 'UdpRcvbufErrors')) + (await this.counter(name, 'Udp6RcvbufErrors'));
    const before = await noRoom();
    const { packets, lost_packets: lost } = (await run()).end.sum!;
    return { packets, lost: lost - ((await noRoom()) - before) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#children) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const ended = new Promise((resolve) => child.once('close', resolve));
      child.kill('SIGKILL');
      await ended;
    }
    for (const space of this.#spaces) spawnSync('ip', ['netns', 'delete', space]);
    rmSync(this.directory, { recursive: true, force: true });
  }
}

export interface IperfReport {
  readonly end: {
    readonly sum_sent: {
      readonly bytes: number;
      readonly bits_per_second: number;
      readonly retransmits?: number;
    };
    readonly sum_received: { readonly bytes: number; readonly bits_per_second: number };
    readonly sum?: { readonly lost_packets: number; readonly packets: number };
  };
}

/** Resolves with the first line of the child's output that matches; rejects when it ends before. */
export function lineOf(child: ChildProcess, pattern: RegExp): Promise<string> {
  return lineOn(child.stdout!, pattern);
}

export function lineOn(stream: Readable, pattern: RegExp): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = '';
    const look = (chunk: Buffer) => {
      text += chunk;
      // Whole ones only: the last may go on.
      const line = text
        .split('\n')
        .slice(0, -1)
        .find((candidate) => pattern.test(candidate));
      if (line === undefined) return;
      stream.off('data', look);
      stream.off('close', end);
      resolve(line);
    };
    const end = () => reject(new Error(`ended before "${pattern}": ${text}`));
    stream.on('data', look);
    stream.once('close', end);
  });
}
