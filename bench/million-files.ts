// npm run million: a million files in one volume, created, listed, walked, recovered after kill -9, walked again, checked, removed;
// with the resident memory of the daemon in each phase.
//   --count 1000000 --bytes 100 --cache-size 1G [--root DIR: any directory, without the kill]
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { command } from '../test/support/command.js';
import { MountUnderTest } from '../test/support/mount-under-test.js';
import { nativeProgram } from '../test/support/native-tool.js';

const SAMPLE_MS = 200;
const PHASE_MS_MAX = 3_600_000;
const RESIDENT_MIB_MAX = 300;
const MOUNT_MS_MAX = 2000;

const { values: options } = parseArgs({
  options: {
    count: { type: 'string', default: '1000000' },
    bytes: { type: 'string', default: '100' },
    'cache-size': { type: 'string', default: '1G' },
    root: { type: 'string' },
  },
});

/** In MiB. */
interface Resident {
  readonly resident: number;
  readonly anonymous: number;
}

const describe = ({ resident, anonymous }: Resident): string =>
  `${resident.toFixed(0)} MiB resident (${anonymous.toFixed(0)} anonymous)`;

/** Highest resident memory in MiB since the last `take`, and of it what is not backed by a file. */
class MemorySampler implements Disposable {
  #resident = 0;
  #anonymous = 0;
  readonly #timer: NodeJS.Timeout;

  constructor(pid: () => number | undefined) {
    this.#timer = setInterval(() => {
      const process = pid();
      if (process === undefined) return;
      try {
        const status = readFileSync(`/proc/${process}/status`, 'utf8');
        const field = (name: string) =>
          Number(status.match(new RegExp(`${name}:\\s+(\\d+) kB`))?.[1] ?? 0) / 1024;
        this.#resident = Math.max(this.#resident, field('VmRSS'));
        this.#anonymous = Math.max(this.#anonymous, field('RssAnon'));
      } catch (error) {
        // Between two lives of the daemon there is nothing to sample.
        if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      }
    }, SAMPLE_MS);
  }

  take(): Resident {
    const taken = { resident: this.#resident, anonymous: this.#anonymous };
    this.#resident = 0;
    this.#anonymous = 0;
    return taken;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}

const tool = nativeProgram('many-files', 'bench/tools');
const mount = options.root ? undefined : await MountUnderTest.start({ cacheSize: options['cache-size'] });
const root = options.root
  ? mkdtempSync(join(options.root, 'penstock-million-'))
  : join(mount!.path, 'million');
const count = Number(options.count);
let residentMax = 0;
const shortfalls: string[] = [];
try {
  using sampler = new MemorySampler(() => mount?.daemonPid);
  if (!options.root) mkdirSync(root);
  const phase = async (kind: string, label = kind) => {
    const argv = [kind, root, options.count, options.bytes];
    const [found, seconds] = (await command(tool, argv, { timeoutMs: PHASE_MS_MAX }))
      .trim()
      .split(' ')
      .map(Number);
    if (found !== count) throw new Error(`${label}: ${found} files instead of ${count}`);
    const taken = sampler.take();
    residentMax = Math.max(residentMax, taken.resident);
    const memory = mount ? `, daemon ${describe(taken)}` : '';
    const rate = (count / (seconds ?? 1)).toFixed(0);
    process.stdout.write(`${label.padEnd(20)} ${(seconds ?? 0).toFixed(1)} s, ${rate} files/s${memory}\n`);
  };
  await phase('create');
  await phase('list');
  await phase('walk');
  if (mount) {
    await mount.kill9();
    const start = performance.now();
    await mount.mount();
    const recoveryMs = performance.now() - start;
    const recovered = sampler.take();
    residentMax = Math.max(residentMax, recovered.resident);
    process.stdout.write(
      `mounted after kill -9 in ${recoveryMs.toFixed(0)} ms, daemon ${describe(recovered)}\n`,
    );
    const { mountMs } = (await mount.status()) as { mountMs: Record<string, number> };
    const phases = Object.entries(mountMs).map(([name, ms]) => `${name} ${ms} ms`);
    process.stdout.write(`  of which ${phases.join(', ')}\n`);
    if (recoveryMs > MOUNT_MS_MAX) shortfalls.push(`mounting took more than ${MOUNT_MS_MAX} ms`);
    await phase('walk', 'walk after the kill');
    const checkStart = performance.now();
    await mount.fsck();
    const checkSeconds = ((performance.now() - checkStart) / 1000).toFixed(1);
    const checked = sampler.take();
    residentMax = Math.max(residentMax, checked.resident);
    process.stdout.write(`fsck is clean         ${checkSeconds} s, daemon ${describe(checked)}\n`);
  }
  await phase('remove');
  if (residentMax > RESIDENT_MIB_MAX) shortfalls.push(`more than ${RESIDENT_MIB_MAX} MiB resident`);
} finally {
  if (options.root) rmSync(root, { recursive: true, force: true });
  await mount?.[Symbol.asyncDispose]();
}
for (const shortfall of shortfalls) process.stdout.write(`below target: ${shortfall}\n`);
process.exitCode = shortfalls.length > 0 ? 1 : 0;
