// `penstock switch capture` as its users start it: a process of its own, a pipe to tshark, Ctrl-C, kill -9.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { packageRoot } from '../../bindings/load.js';
import { CliWorld } from '../support/cli-context.js';
import { NetworkLab, networkUnavailable } from '../support/network-lab.js';

const TIMEOUT_MS = 180_000;
const MAIN = join(packageRoot(), 'dist/src/cli/main.js');
const unavailable = networkUnavailable(['ping', 'tshark']);

describe.skipIf(unavailable !== undefined)('penstock switch capture', () => {
  let lab: NetworkLab;
  let world: CliWorld;
  let ended: Promise<unknown>;

  beforeAll(async () => {
    const setup = spawnSync(process.execPath, ['src/setup/setup.mjs'], {
      cwd: packageRoot(),
      encoding: 'utf8',
    });
    expect(setup.status, setup.stderr).toBe(0);
    lab = new NetworkLab('a', 'b');
    world = new CliWorld();
    const tap = (name: string) => ({ tap: 'eth0', namespace: lab.path(name), network: 'blue' });
    const rules = [{ name: 'no-large', match: { protocol: 'udp' }, action: 'drop' }];
    const document = { workers: 1, networks: { blue: {} }, ports: { a: tap('a'), b: tap('b') }, rules };
    writeFileSync(join(world.directory, 'penstock.yaml'), JSON.stringify({ switch: document }));
    ({ ended } = await world.serve('up', 'penstock.yaml', '--json'));
    for (const [i, name] of ['a', 'b'].entries()) lab.ip(name, `addr add 10.88.0.${i + 1}/24 dev eth0`);
  }, 600_000);

  afterAll(async () => {
    world?.signal();
    await ended;
    world?.remove();
    await lab?.[Symbol.asyncDispose]();
  });

  const ping = (count: number) => lab.run('a', 'ping', '-c', `${count}`, '-i', '0.05', '10.88.0.2');
  const captures = async (): Promise<number> =>
    JSON.parse((await world.run('switch', 'stats', '--json')).out).counters.captures;

  /** The command as a process, in force when this returns. */
  async function start(
    ...argv: string[]
  ): Promise<{ readonly child: ChildProcess; text(): string; end: Promise<number | null> }> {
    const child = spawn(process.execPath, [MAIN, 'switch', 'capture', ...argv], {
      cwd: world.directory,
      env: { ...process.env, ...world.environment },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let errors = '';
    child.stderr!.on('data', (chunk: Buffer) => {
      errors += chunk;
    });
    const end = new Promise<number | null>((resolve) => child.once('close', (code) => resolve(code)));
    await expect.poll(captures, { timeout: 20_000, interval: 50 }).toBe(1);
    return { child, text: () => errors, end };
  }

  test('writes a file until Ctrl-C, and says how much it was', { timeout: TIMEOUT_MS }, async () => {
    const { child, text, end } = await start('-w', 'ping.pcapng', '--port', 'a', '--match', 'protocol: icmp');
    await ping(2);
    child.kill('SIGINT');
    expect(await end).toBe(0);
    expect(text()).toBe('4 packets captured, 0 lost\n');
    expect(await captures()).toBe(0);
    const file = join(world.directory, 'ping.pcapng');
    const { stdout } = spawnSync('tshark', ['-r', file, '-T', 'fields', '-e', 'icmp.type'], {
      encoding: 'utf8',
    });
    expect(stdout).toBe('8\n0\n8\n0\n');
    expect(statSync(file).uid).toBe(process.getuid!());
    // The statistics of both ports are the last blocks.
    expect(readFileSync(file).toString('latin1')).toContain('penstock');
  });

  test('feeds tshark through a pipe', { timeout: TIMEOUT_MS }, async () => {
    const shell = '"$0" "$@" | tshark -r - -T fields -e frame.interface_name';
    const command = [
      process.execPath,
      MAIN,
      ...'switch capture -w - --count 4 --match'.split(' '),
      'protocol: icmp',
    ];
    const pipeline = spawn('bash', ['-c', shell, ...command], {
      env: { ...process.env, ...world.environment },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const out = { stdout: '', stderr: '' };
    for (const stream of ['stdout', 'stderr'] as const)
      pipeline[stream].on('data', (chunk: Buffer) => {
        out[stream] += chunk;
      });
    const end = new Promise((resolve) => pipeline.once('close', resolve));
    await expect.poll(captures, { timeout: 20_000, interval: 50 }).toBe(1);
    await ping(1);
    expect(await end).toBe(0);
    expect(out.stdout).toBe('a\nb\nb\na\n');
    expect(out.stderr).toContain('4 packets captured, 0 lost\n');
  });

  test('ends in the daemon when its process is killed', { timeout: TIMEOUT_MS }, async () => {
    const { child, end } = await start();
    child.kill('SIGKILL');
    await end;
    await expect.poll(captures, { interval: 20 }).toBe(0);
  });

  test('ends when nobody reads its output any more', { timeout: TIMEOUT_MS }, async () => {
    const { child, end } = await start();
    child.stdout!.destroy();
    await ping(2);
    await end;
    await expect.poll(captures, { interval: 20 }).toBe(0);
  });

  test('prints a line a packet, or JSON, with what became of it', { timeout: TIMEOUT_MS }, async () => {
    const send = () => lab.run('a', 'bash', '-c', 'echo > /dev/udp/10.88.0.2/9');
    const dropped = world.run('switch', 'capture', '--drops', '--match', 'protocol: udp', '--count', '1');
    const asJson = world.run(
      'switch',
      'capture',
      '--drops',
      '--match',
      '{protocol: udp}',
      '--count',
      '1',
      '--json',
    );
    await expect.poll(captures, { interval: 20 }).toBe(2);
    await send();
    expect((await dropped).out).toMatch(
      /^\d\d:\d\d:\d\d\.\d{9} a >< 10\.88\.0\.1\.\d+ > 10\.88\.0\.2\.9: UDP, length 43, dropped: rule \(a rule says drop\), rule no-large\n$/,
    );
    expect(JSON.parse((await asJson).out)).toMatchObject({
      port: 'a',
      drop: { name: 'rule' },
      rule: 'no-large',
    });
    expect((await dropped).err).toBe('1 packets captured, 0 lost\n');
  });

  test('says what is wrong with its words', { timeout: TIMEOUT_MS }, async () => {
    expect(await world.run('switch', 'capture', '--port', 'z')).toMatchObject({
      code: 1,
      err: 'penstock: no port "z" (there are a, b)\n',
    });
    expect((await world.run('switch', 'capture', '--match', 'colour: red')).err).toContain(
      'unknown key "colour"',
    );
    expect((await world.run('switch', 'capture', '-w', 'no/such/directory')).code).toBe(2);
    expect(await captures()).toBe(0);
  });
});
