// The daemon's life: start, being asked, stop, and what another process finds out about it.
import { spawn } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { isAlive, livingClaims, readClaim, takeClaim, thisProcess } from '../../src/daemon/claim.js';
import { embeddedDefault, parseConfig } from '../../src/daemon/config.js';
import { Daemon, type DaemonStatus } from '../../src/daemon/daemon.js';
import { RuntimeDirectory } from '../../src/daemon/runtime-directory.js';
import type { MountOptions } from '../../src/gateway/mount-contract.js';
import { call } from '../../src/rpc/client.js';
import { systemClock } from '../../src/telemetry/clock.js';
import { createLogger } from '../../src/telemetry/logger.js';
import { errorWith } from '../support/errors.js';
import { ProviderDouble } from '../support/volume-double.js';

let directory: string;
let runtime: RuntimeDirectory;
let provider: ProviderDouble;
let log: string[];
let running: Daemon[];

beforeEach(() => {
  directory = realpathSync(mkdtempSync(join(tmpdir(), 'penstock-daemon-')));
  runtime = RuntimeDirectory.open({ PENSTOCK_RUNTIME_DIR: join(directory, 'run') });
  provider = new ProviderDouble();
  log = [];
  running = [];
});

afterEach(async () => {
  for (const daemon of running) await daemon.stop();
  rmSync(directory, { recursive: true });
});

async function start(config = embeddedDefault(directory)): Promise<Daemon> {
  const logger = createLogger({ write: (line) => void log.push(line) });
  const daemon = await Daemon.start(config, { provider, logger, clock: systemClock, runtime });
  running.push(daemon);
  return daemon;
}

const socket = () => runtime.socket(process.pid);
const mountpoint = () => join(directory, 'mnt');

describe('start', () => {
  test('the embedded default makes the volume and the mountpoint, then mounts', async () => {
    const daemon = await start();
    expect(provider.formatted).toEqual([
      { store: `file:${directory}/.penstock/store`, volume: 'default', ifAbsent: true },
    ]);
    expect(provider.volumes[0]!.options).toMatchObject({
      mountpoint: mountpoint(),
      transport: 'native',
      fsync: 'local',
    });
    expect(existsSync(mountpoint())).toBe(true);
    expect(livingClaims(runtime.mounts)).toMatchObject([
      { mountpoint: mountpoint(), socket: socket(), pid: process.pid },
    ]);
    expect(await call<DaemonStatus>(socket(), 'status', {})).toMatchObject({
      pid: process.pid,
      volumes: [{ volume: 'default', mountpoint: mountpoint(), state: 'mounted' }],
    });
    await daemon.stop();
    await daemon.ended;
    expect(readdirSync(runtime.root).filter((name) => name.endsWith('.sock'))).toEqual([]);
    expect(livingClaims(runtime.mounts)).toEqual([]);
  });

  test('the socket of a dead process is swept away', async () => {
    const child = spawn('true');
    await new Promise((resolve) => child.once('close', resolve));
    writeFileSync(runtime.socket(child.pid!), '');
    await start();
    expect(existsSync(runtime.socket(child.pid!))).toBe(false);
    expect(existsSync(socket())).toBe(true);
  });

  test('a second daemon on the same store is refused, the first goes on', async () => {
    await start();
    await expect(start()).rejects.toMatchObject({
      code: 'ALREADY_RUNNING',
      message: /already served by process \d+/,
    });
    expect(await call(socket(), 'status', {})).toMatchObject({ pid: process.pid });
  });

  test('given the second of two volumes fails, the first is unmounted again and nothing stays behind', async () => {
    mkdirSync(join(directory, 'a'));
    const volumes = ['a', 'absent'].map((name) => ({ store: `file:${name}-store`, name, mountpoint: name }));
    const started = start(parseConfig({ volumes }, directory, 'test'));
    await expect(started).rejects.toMatchObject({ code: 'ENOENT', message: /does not exist; make it with/ });
    expect(provider.volumes.map((volume) => volume.calls)).toEqual([['unmount']]);
    expect(livingClaims(runtime.mounts)).toEqual([]);
    expect(existsSync(socket())).toBe(false);
  });

  test('told to shut down while it starts, it unmounts what it was about to mount', async () => {
    let goOn = (): void => {};
    const held = new Promise<void>((resolve) => {
      goOn = resolve;
    });
    const { mount } = provider;
    Object.assign(provider, { mount: (options: MountOptions) => held.then(() => mount(options)) });
    const starting = start();
    await expect.poll(() => existsSync(socket())).toBe(true);
    expect(await call(socket(), 'shutdown', {})).toEqual({ stopping: true });
    expect(livingClaims(runtime.mounts)).toHaveLength(1);
    goOn();
    const daemon = await starting;
    await daemon.ended;
    expect(provider.volumes[0]!.calls).toEqual(['unmount']);
    expect(livingClaims(runtime.mounts)).toEqual([]);
  });

  test('the reason of a failed mount reaches the caller as it is', async () => {
    provider.failure = errorWith('ENOSPC', 'the cache directory is full; free some space');
    await expect(start()).rejects.toBe(provider.failure);
    provider.failure = undefined;
    await start();
  });

  test('a mountpoint that is a file or not empty is refused', async () => {
    writeFileSync(mountpoint(), '');
    await expect(start()).rejects.toMatchObject({ code: 'ENOTDIR' });
    rmSync(mountpoint());
    mkdirSync(mountpoint());
    writeFileSync(join(mountpoint(), 'file'), '');
    await expect(start()).rejects.toMatchObject({ code: 'ENOTEMPTY', message: /choose an empty directory/ });
  });
});

describe('being told', () => {
  test('umount drains, reports progress, ends the daemon', async () => {
    const daemon = await start();
    const [volume] = provider.volumes;
    volume!.dirtyBytes = 200 * 4096;
    const progress: unknown[] = [];
    const parameters = { mountpoint: mountpoint(), drain: true };
    await call(socket(), 'umount', parameters, { onProgress: (each) => progress.push(each) });
    expect(progress.length).toBeGreaterThan(2);
    expect(progress[0]).toEqual({ done: 0, total: 200 * 4096, unit: 'bytes' });
    expect(volume!.calls).toEqual(['drain', 'unmount drain']);
    await daemon.ended;
    expect(existsSync(socket())).toBe(false);
  });

  test('umount of a busy volume fails and changes nothing, lazily it succeeds', async () => {
    const daemon = await start();
    provider.volumes[0]!.busy = true;
    const umount = (lazy: boolean) => call(socket(), 'umount', { mountpoint: mountpoint(), lazy });
    await expect(umount(false)).rejects.toMatchObject({ code: 'EBUSY' });
    expect(livingClaims(runtime.mounts)).toHaveLength(1);
    await umount(true);
    await daemon.ended;
  });

  test('a caller that goes away stops the drain, and the volume stays mounted', async () => {
    await start();
    const [volume] = provider.volumes;
    volume!.dirtyBytes = 1e9;
    const abort = new AbortController();
    const umounting = call(socket(), 'umount', { mountpoint: mountpoint() }, { signal: abort.signal });
    const interrupted = expect(umounting).rejects.toThrow('interrupted');
    await expect.poll(() => volume!.calls).toEqual(['drain']);
    abort.abort(new Error('interrupted'));
    await interrupted;
    const drained = async () => {
      const before = volume!.dirtyBytes;
      await new Promise((resolve) => setTimeout(resolve, 50));
      return before - volume!.dirtyBytes;
    };
    await expect.poll(drained).toBe(0);
    expect(volume!.calls).toEqual(['drain']);
  });

  test('fsck, gc, scrub, warmup, drain reach the volume', async () => {
    await start();
    const at = { mountpoint: mountpoint() };
    expect(await call(socket(), 'fsck', at)).toEqual({ inodesChecked: 10, stripesChecked: 4, problems: [] });
    expect(await call(socket(), 'gc', at)).toMatchObject({ bytesFreed: 4096 });
    expect(await call(socket(), 'scrub', at)).toMatchObject({ pagesChecked: 100 });
    expect(await call(socket(), 'warmup', { ...at, path: 'a/b' })).toMatchObject({ files: 2 });
    expect(await call(socket(), 'drain', at)).toMatchObject({ publishedBytes: 0 });
    expect(provider.volumes[0]!.calls).toEqual(['fsck', 'gc', 'scrub', 'warmup a/b', 'drain']);
  });

  test('a wrong mountpoint and wrong parameters say so', async () => {
    await start();
    await expect(call(socket(), 'drain', { mountpoint: '/nowhere' })).rejects.toMatchObject({
      code: 'NOT_MOUNTED',
    });
    await expect(call(socket(), 'drain', {})).rejects.toMatchObject({
      code: 'BAD_PARAMETERS',
      message: /^mountpoint: /,
    });
  });

  test('stats name the volume', async () => {
    await start();
    expect(await call(socket(), 'stats', {})).toMatchObject({
      sources: [{ name: 'volume', labels: { volume: 'default' }, counters: { evictions: 3 } }],
    });
  });

  test('shutdown answers before it stops', async () => {
    const daemon = await start();
    expect(await call(socket(), 'shutdown', { drain: true })).toEqual({ stopping: true });
    await daemon.ended;
    expect(provider.volumes[0]!.calls).toEqual(['drain', 'unmount']);
  });
});

describe('stop', () => {
  test('dirty data stays in the cache, and the log says how much', async () => {
    const daemon = await start();
    provider.volumes[0]!.dirtyBytes = 12_288;
    await daemon.stop();
    expect(provider.volumes[0]!.calls).toEqual(['unmount']);
    expect(log.join('')).toMatch(/"dirtyBytes":12288.*safe in the cache/);
  });

  test('a busy mount is detached', async () => {
    const daemon = await start();
    provider.volumes[0]!.busy = true;
    await daemon.stop();
    expect(provider.volumes[0]!.calls).toEqual(['unmount', 'unmount lazy']);
  });

  test('when somebody else unmounts the volume the daemon ends', async () => {
    const daemon = await start();
    provider.volumes[0]!.end();
    await daemon.ended;
    expect(provider.volumes[0]!.calls).toEqual([]);
  });
});

test('a volume that ends badly is the end that the daemon reports', async () => {
  const daemon = await start();
  provider.volumes[0]!.fail(errorWith('EIO', 'the volume did not close cleanly'));
  await expect(daemon.ended).rejects.toThrow('did not close cleanly');
  expect(livingClaims(runtime.mounts)).toEqual([]);
  expect(existsSync(socket())).toBe(false);
});

describe('claims', () => {
  const holder = (pid: number, startTicks: number) => ({ pid, startTicks, socket: '', store: 's' });

  test('a dead process, or another one with its id, holds nothing', async () => {
    const child = spawn('true');
    await new Promise((resolve) => child.once('close', resolve));
    const path = runtime.storeClaim('s');
    const me = thisProcess();
    expect(takeClaim(path, holder(child.pid!, 1))).toBeUndefined();
    expect(takeClaim(path, holder(me.pid, me.startTicks - 1))).toBeUndefined();
    expect(takeClaim(path, holder(me.pid, me.startTicks))).toBeUndefined();
    expect(takeClaim(path, holder(me.pid, me.startTicks))).toMatchObject({ pid: me.pid });
    expect(readClaim(path)).toMatchObject(me);
    expect(isAlive(me)).toBe(true);
    expect(readdirSync(join(runtime.root, 'stores'))).toHaveLength(1);
  });
});
