// A volume mounted through the command line, as a user would, with everything a test may do to it: fill it, drain it, kill
// its daemon, take its cache away, mount it again. The daemon is a child of its own (`--foreground`), so that the test
// never waits for itself; whatever happens to the test, the mount and the daemon are gone at its end.
import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { packageRoot } from '../../bindings/load.js';
import { call } from '../../src/rpc/client.js';

export interface MountOptions {
  /** As the command line takes it: '64M'. */
  readonly cacheSize?: string;
  /** Instead of a fresh temporary directory; it is not removed at the end. */
  readonly directory?: string;
  /** Where cache and store are, instead of in that directory: a disk of their own. */
  readonly disk?: string;
  /** More arguments for `penstock format`. */
  readonly formatArguments?: readonly string[];
  /** More arguments for `penstock mount`. */
  readonly arguments?: readonly string[];
}

export interface CommandResult {
  readonly code: number | string;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Pressure {
  readonly dirtyBytes: number;
  readonly inFlightBytes: number;
}

const MOUNT_MS_MAX = 60_000;
const ENDED_MS_MAX = 60_000;
/** Those of the command line's first line. */
const NODE_FLAGS = ['--max-semi-space-size=4'];
const COMMAND_MS_MAX = 120_000;
const live = new Set<MountUnderTest>();

/** Why no volume can be mounted here; undefined when one can. */
export function mountUnavailable(): string | undefined {
  if (!existsSync('/dev/fuse')) return 'there is no /dev/fuse';
  if (!existsSync(commandLine())) return 'the command line is not built (npm run build:ts)';
  const help = spawnSync('node', [commandLine(), 'mount', '--help'], { encoding: 'utf8' });
  return help.status === 0 ? undefined : 'the command line has no mount command';
}

export function commandLine(): string {
  return join(packageRoot(), 'dist/src/cli/main.js');
}

/** Runs `penstock ...` to its end; a command that hangs is an error of its own, not a hanging test. */
export function penstock(
  argv: readonly string[],
  env: NodeJS.ProcessEnv = process.env,
  timeoutMs = COMMAND_MS_MAX,
): Promise<CommandResult> {
  return new Promise((resolve) => {
    const options = {
      encoding: 'utf8',
      env,
      timeout: timeoutMs,
      killSignal: 'SIGKILL',
      maxBuffer: 64 << 20,
    } as const;
    execFile('node', [commandLine(), ...argv], options, (error, stdout, stderr) => {
      const code = error ? (error.killed ? `hang: no end in ${timeoutMs} ms` : (error.code ?? 'signal')) : 0;
      resolve({ code, stdout, stderr });
    });
  });
}

export async function penstockOrThrow(argv: readonly string[], env?: NodeJS.ProcessEnv): Promise<string> {
  const { code, stdout, stderr } = await penstock(argv, env);
  if (code !== 0) throw new Error(`penstock ${argv.join(' ')}: ${code}\n${stderr || stdout}`);
  return stdout;
}

export class MountUnderTest implements AsyncDisposable {
  readonly base: string;
  /** Where the volume is mounted. */
  readonly path: string;
  readonly cacheDirectory: string;
  readonly storeDirectory: string;
  /** Commands about this mount need it: daemons of tests keep their register apart from the user's. */
  readonly environment: NodeJS.ProcessEnv;
  #daemon: ChildProcess | undefined;
  #log = '';

  private constructor(readonly options: MountOptions) {
    this.base = options.directory ?? mkdtempSync(join(tmpdir(), 'penstock-mount-'));
    this.path = join(this.base, 'mnt');
    const disk = options.disk ?? this.base;
    this.cacheDirectory = join(disk, 'cache');
    this.storeDirectory = join(disk, 'store');
    const runtime = join(this.base, 'run');
    this.environment = { ...process.env, PENSTOCK_RUNTIME_DIR: runtime };
    for (const directory of [runtime, this.path, this.cacheDirectory])
      mkdirSync(directory, { recursive: true });
  }

  static async start(options: MountOptions = {}): Promise<MountUnderTest> {
    const mount = new MountUnderTest(options);
    live.add(mount);
    try {
      await mount.command('format', mount.store, '--name', 'test', ...(options.formatArguments ?? []));
      await mount.mount();
      return mount;
    } catch (error) {
      await mount[Symbol.asyncDispose]();
      throw error;
    }
  }

  get store(): string {
    return `file:${this.storeDirectory}`;
  }

  get daemonPid(): number | undefined {
    return this.#daemon?.pid;
  }

  mountArguments(): string[] {
    const { cacheSize = '1G', arguments: more = [] } = this.options;
    const where = ['--cache-dir', this.cacheDirectory, '--cache-size', cacheSize];
    // Tests act as several users; only root may allow that.
    const shared = process.getuid?.() === 0 ? ['-o', 'allow_other'] : [];
    return ['mount', this.store, this.path, '--name', 'test', ...where, ...shared, ...more];
  }

  /** Runs `penstock ...` beside this mount and answers what it printed; any exit code but 0 throws. */
  command(...argv: readonly string[]): Promise<string> {
    return penstockOrThrow(argv, this.environment);
  }

  async mount(...more: readonly string[]): Promise<void> {
    // What a crash leaves behind is for the daemon to recover; the directory itself is the user's to provide.
    mkdirSync(this.cacheDirectory, { recursive: true });
    const argv = [commandLine(), ...this.mountArguments(), ...more, '--foreground'];
    const daemon = spawn('node', [...NODE_FLAGS, ...argv], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: this.environment,
    });
    this.#daemon = daemon;
    let ready = false;
    const keep = (text: Buffer) => {
      ready ||= text.includes(' is mounted on ');
      this.#log = (this.#log + text).slice(-20_000);
    };
    daemon.stdout.on('data', keep);
    daemon.stderr.on('data', keep);
    const end = performance.now() + MOUNT_MS_MAX;
    // What a killed daemon left is in the mount table too: only the new daemon's own word counts.
    while (!ready) {
      if (daemon.exitCode !== null || daemon.signalCode !== null) {
        throw new Error(`the mount ended (${daemon.exitCode ?? daemon.signalCode}): ${this.#log}`);
      }
      if (performance.now() > end) throw new Error(`not mounted after ${MOUNT_MS_MAX} ms: ${this.#log}`);
      await sleep(10);
    }
  }

  /** `penstock umount`: drains, unmounts, and the daemon of the foreground ends. */
  async umount(): Promise<void> {
    await this.command('umount', this.path);
    await this.#ended();
  }

  async drain(): Promise<void> {
    await this.#ask('drain', { mountpoint: this.path });
  }

  async kill9(): Promise<void> {
    this.#daemon?.kill('SIGKILL');
    await this.#ended();
  }

  /** Takes a mount whose daemon is dead out of the tree, as the user would. */
  async umountDead(): Promise<void> {
    await this.command('umount', this.path);
    if (isMounted(this.path)) throw new Error(`${this.path} is still mounted`);
  }

  deleteCache(): void {
    rmSync(this.cacheDirectory, { recursive: true, force: true });
  }

  /** `more`: arguments beside those that every mount of this one gets. */
  async remount(...more: readonly string[]): Promise<void> {
    await this.umount();
    await this.mount(...more);
  }

  /** Everything is read from the store afterwards: drained, unmounted, cache directory deleted, mounted again. */
  async evict(): Promise<void> {
    await this.drain();
    await this.umount();
    this.deleteCache();
    await this.mount();
  }

  /** Throws with the problems found. Works on a mounted volume. */
  async fsck(): Promise<void> {
    const report = JSON.parse(await this.command('fsck', this.path, '--json'));
    if (report.problems?.length > 0)
      throw new Error(`fsck: ${JSON.stringify(report.problems).slice(0, 4000)}`);
  }

  async status(): Promise<Record<string, unknown>> {
    return JSON.parse(await this.command('status', this.path, '--json'));
  }

  async stats(): Promise<Record<string, number>> {
    const answer = await this.#ask<{ sources: { name: string; counters: Record<string, number> }[] }>(
      'stats',
    );
    const volume = answer.sources.find(({ name }) => name === 'volume');
    if (!volume) throw new Error('the daemon shows no counters of a volume');
    return volume.counters;
  }

  async pressure(): Promise<Pressure> {
    const { dirtyBytes = 0, inFlightBytes = 0 } = await this.stats();
    return { dirtyBytes, inFlightBytes };
  }

  get log(): string {
    return this.#log;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#daemon?.kill('SIGKILL');
    await this.#ended();
    this.removeNow();
  }

  /** Synchronous, for the end of the process too. */
  removeNow(): void {
    live.delete(this);
    this.#daemon?.kill('SIGKILL');
    for (let tries = 0; tries < 8 && isMounted(this.path); tries += 1) spawnSync('umount', ['-l', this.path]);
    if (isMounted(this.path)) return;
    if (this.options.directory === undefined)
      rmSync(this.base, { recursive: true, force: true, maxRetries: 5 });
  }

  /** Of the admin socket, without a process in between: a kill may follow at once, and its start is not measured. */
  #ask<Result>(method: string, parameters: object = {}): Promise<Result> {
    return call<Result>(join(this.base, 'run', `${this.daemonPid}.sock`), method, parameters);
  }

  async #ended(): Promise<void> {
    const daemon = this.#daemon;
    if (!daemon) return;
    const end = performance.now() + ENDED_MS_MAX;
    while (daemon.exitCode === null && daemon.signalCode === null) {
      if (performance.now() > end)
        throw new Error(`the daemon has not ended after ${ENDED_MS_MAX} ms: ${this.#log}`);
      await sleep(10);
    }
    this.#daemon = undefined;
  }
}

export function isMounted(path: string): boolean {
  return readFileSync('/proc/self/mountinfo', 'utf8').includes(` ${path} `);
}

process.on('exit', () => {
  for (const mount of live) mount.removeNow();
});
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    for (const mount of live) mount.removeNow();
    process.exit(1);
  });
}
