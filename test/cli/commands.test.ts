// Every command of the command line against a daemon whose volumes are doubles: output for people and for scripts, exit
// codes, and the one line of each mistake.
import { mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { ContentEntry } from '../../src/access/content-manifest.js';
import { takeClaim, thisProcess } from '../../src/daemon/claim.js';
import { RuntimeDirectory } from '../../src/daemon/runtime-directory.js';
import { CliWorld, type Outcome } from '../support/cli-context.js';
import { errorWith } from '../support/errors.js';

let world: CliWorld;
let daemon: { readonly ended: Promise<Outcome> } | undefined;

beforeEach(() => {
  world = new CliWorld();
  daemon = undefined;
});

afterEach(async () => {
  world.signal();
  await daemon?.ended;
  world.remove();
});

const up = async (...argv: string[]) => {
  daemon = await world.serve('up', ...argv);
  return world.provider.volumes[0]!;
};
const json = (outcome: Outcome): unknown => JSON.parse(outcome.out);
const mnt = () => join(world.directory, 'mnt');

describe('up', () => {
  test('runs the embedded default until Ctrl-C', async () => {
    const volume = await up();
    expect(world.output).toBe(
      `default is mounted on ${mnt()} (kept in file:${world.directory}/.penstock/store)\nStop with Ctrl-C.\n`,
    );
    world.signal();
    const { code, err } = await daemon!.ended;
    expect(code).toBe(0);
    expect(err).toMatch(/^{"level":30,.*"msg":"made the volume"}\n$/);
    expect(volume.calls).toEqual(['unmount']);
  });

  test('takes ./penstock.yaml when there is one', async () => {
    mkdirSync(join(world.directory, 'work'));
    const path = join(world.directory, 'penstock.yaml');
    writeFileSync(
      path,
      'log: { level: silent }\nvolumes: [{ store: "file:s", name: work, mountpoint: work }]\n',
    );
    await up('--json');
    expect(JSON.parse(world.output)).toEqual({
      pid: process.pid,
      volumes: [
        { volume: 'work', mountpoint: `${world.directory}/work`, store: `file:${world.directory}/s` },
      ],
    });
  });

  test('a second one on the same store is told who has it', async () => {
    await up();
    const second = await world.run('up');
    expect(second).toMatchObject({ code: 1, out: '' });
    expect(second.err).toMatch(
      /^penstock: file:.* is already served by process \d+; stop that one first, .*\n$/,
    );
  });

  test('a mistake in the configuration is misuse', async () => {
    writeFileSync(
      join(world.directory, 'bad.yaml'),
      'volumes: [{ store: "file:s", mountpoint: m, sise: 3 }]',
    );
    const outcome = await world.run('up', 'bad.yaml');
    expect(outcome.code).toBe(2);
    expect(outcome.err).toMatch(
      /^penstock: .*bad\.yaml: volumes\[0\]: unknown key "sise" \(allowed: store, .*\)\n$/,
    );
  });

  test('the reason of a failed mount is the line that is shown', async () => {
    world.provider.failure = errorWith('ENODEV', 'there is no /dev/fuse; load the module');
    const outcome = await world.run('up');
    expect(outcome).toMatchObject({ code: 1, out: '' });
    expect(outcome.err).toMatch(/\npenstock: there is no \/dev\/fuse; load the module\n$/);
    expect(json(await world.run('up', '--json'))).toEqual({
      error: { code: 'ENODEV', message: 'there is no /dev/fuse; load the module' },
    });
  });
});

describe('mount and umount', () => {
  const mount = async (...argv: string[]) => {
    mkdirSync(mnt(), { recursive: true });
    daemon = await world.serve(
      'mount',
      'file:store',
      'mnt',
      '--foreground',
      '--log-level',
      'silent',
      ...argv,
    );
    return world.provider.volumes[0]!;
  };

  test('every option reaches the volume', async () => {
    const volume = await mount(
      ...['--name', 'work', '--transport', 'fuse-native', '--cache-dir', 'c', '--cache-size', '64MiB'],
      ...['--dirty-size', '32M', '--fsync', 'remote', '-o', 'ro,nosuid', '-o', 'allow_other'],
    );
    const { logger, clock, ...options } = volume.options;
    expect(options).toEqual({
      store: `file:${world.directory}/store`,
      volume: 'work',
      mountpoint: mnt(),
      transport: 'fuse-native',
      cacheDirectory: `${world.directory}/c`,
      cacheBytes: 64 * 2 ** 20,
      dirtyBytes: 32 * 2 ** 20,
      fsync: 'remote',
      mountOptions: ['nosuid', 'allow_other'],
      readOnly: true,
    });
  });

  test('umount drains and the mount process ends', async () => {
    const volume = await mount();
    volume.dirtyBytes = 8192;
    expect(await world.run('umount', 'mnt')).toEqual({ code: 0, out: `unmounted ${mnt()}\n`, err: '' });
    expect(volume.calls).toEqual(['drain', 'unmount drain']);
    expect((await daemon!.ended).code).toBe(0);
  });

  test('umount --no-drain --lazy says so to the volume', async () => {
    const volume = await mount();
    volume.busy = true;
    const busy = await world.run('umount', 'mnt', '--no-drain');
    expect(busy).toEqual({
      code: 1,
      out: '',
      err: `penstock: ${mnt()} is in use; close what is open there\n`,
    });
    expect(json(await world.run('umount', 'mnt', '--no-drain', '--lazy', '--json'))).toEqual({
      mountpoint: mnt(),
      drained: false,
    });
    expect(volume.calls).toEqual(['unmount', 'unmount lazy']);
  });

  test('Ctrl-C during umount leaves the volume mounted', async () => {
    const volume = await up();
    volume.dirtyBytes = 1e9;
    const umounting = world.run('umount', 'mnt');
    while (volume.calls.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    // Only the command that was started last hears it: the daemon would end on the same signal.
    world.signalLast();
    expect(await umounting).toMatchObject({
      code: 1,
      err: `penstock: "umount" was interrupted; ${mnt()} stays mounted\n`,
    });
    expect(volume.calls).toEqual(['drain']);
    expect((await world.run('status', 'mnt')).code).toBe(0);
  });

  test('a daemon that cannot even start is reported with its log', async () => {
    mkdirSync(mnt());
    const outcome = await world.run('mount', 'file:store', 'mnt');
    expect(outcome.code).toBe(1);
    expect(outcome.err).toMatch(/^penstock: the daemon ended before it was ready; its log is .*\.log\n$/);
  });

  test('progress is a bar on a terminal, and nothing elsewhere', async () => {
    const volume = await mount();
    volume.dirtyBytes = 200 * 4096;
    expect(await world.run('drain', 'mnt')).toEqual({
      code: 0,
      out: 'published 800 KiB of 1 files\n',
      err: '',
    });
    world.terminal = true;
    volume.dirtyBytes = 200 * 4096;
    const outcome = await world.run('drain', 'mnt');
    expect(outcome.out).toBe('published 800 KiB of 1 files\n');
    expect(outcome.err).toMatch(/drain .*of 800 KiB/);
  });
});

describe('asking a mounted volume', () => {
  test('status for people', async () => {
    const volume = await up();
    volume.dirtyBytes = 3 * 2 ** 20;
    const { code, out } = await world.run('status');
    expect(code).toBe(0);
    expect(out).toMatch(
      new RegExp(
        [
          `default on ${mnt()}`,
          `  store   file:${world.directory}/.penstock/store, fsync local`,
          `  cache   3.00 MiB of .* in ${world.directory}/.penstock/cache`,
          `  dirty   3.00 MiB in 1 files not yet published \\(bound .*\\)`,
          `  state   mounted, native transport, process ${process.pid}, up \\d s`,
          '  mounted cache 3 ms, kernel 0 ms\n',
        ].join('\n'),
      ),
    );
  });

  test('status for scripts, of all and of one', async () => {
    expect(json(await world.run('status', '--json'))).toEqual([]);
    await up();
    expect(json(await world.run('status', '--json'))).toMatchObject([
      { volume: 'default', mountpoint: mnt() },
    ]);
    expect(json(await world.run('status', 'mnt', '--json'))).toMatchObject({ cache: { dirtyBytes: 0 } });
  });

  test('stats are rates', async () => {
    const volume = await up();
    // Read between the first look and the second.
    const look = volume.stats.bind(volume);
    let looks = 0;
    volume.stats = () => {
      looks += 1;
      if (looks === 2) volume.readBytes = 8192;
      return look();
    };
    const lines = (await world.run('stats', 'mnt', '--watch', '0.2', '--count', '2', '--json')).out
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, number>);
    expect(lines).toHaveLength(2);
    expect(lines[0]).toMatchObject({ readBytes: 8192, readOperations: 2, metadataOperations: 0 });
    expect(lines[0]!.seconds).toBeGreaterThan(0.15);
    expect(lines[1]).toMatchObject({ readBytes: 0 });
    const people = (await world.run('stats', 'mnt', '--watch', '0.01', '--count', '1')).out.split('\n');
    expect(people[0]).toMatch(/reads\/s +read\/s +writes\/s/);
    expect(people[1]).toMatch(/^ +0 +0 B/);
    expect((await world.run('stats', 'mnt', '--all')).out).toMatch(/^evictions +3$/m);
  });

  test('fsck and scrub exit with 1 when they find something', async () => {
    const volume = await up();
    expect(await world.run('fsck', 'mnt')).toMatchObject({
      code: 0,
      out: '10 inodes and 4 stripes checked, clean\n',
    });
    expect(await world.run('scrub', 'mnt')).toMatchObject({
      code: 0,
      out: '100 pages checked, none damaged\n',
    });
    volume.problems = ['inode 7 has no name'];
    expect(await world.run('fsck', 'mnt')).toMatchObject({
      code: 1,
      out: 'inode 7 has no name\n10 inodes and 4 stripes checked, 1 problems\n',
      err: '',
    });
    const scrubbed = await world.run('scrub', 'mnt', '--json');
    expect(scrubbed.code).toBe(1);
    expect(json(scrubbed)).toMatchObject({ damaged: [{ stripe: 5 }] });
  });

  describe('scrub with a manifest', () => {
    const entry = (ino: number, content: ContentEntry['content'], version = 1): ContentEntry => ({
      ino,
      version,
      size: 100,
      path: `file-${ino}`,
      content,
    });
    const saved = () => join(world.directory, 'june.manifest');

    test('tells what was written from what changed by itself, and exits with 1 for that', async () => {
      const volume = await up();
      volume.contents = [1, 2, 3, 4, 5].map((ino) => entry(ino, `hash-${ino}`));
      expect(await world.run('scrub', 'mnt', '--save-manifest', 'june.manifest')).toEqual({
        code: 0,
        out: '5 files with 3.00 MiB hashed, 3.00 MiB/s, none damaged\n',
        err: '',
      });
      const again = await world.run('scrub', 'mnt', '--manifest', 'june.manifest', '--json');
      expect(again.code).toBe(0);
      expect(json(again)).toMatchObject({ intact: 5, damaged: [], changed: [], added: [], removed: [] });
      volume.contents = [
        entry(1, 'hash-1'),
        entry(2, 'other', 2),
        entry(3, 'other'),
        entry(4, { problem: 'page 7 is damaged' }),
        entry(6, 'hash-6'),
      ];
      const outcome = await world.run(
        ...['scrub', 'mnt', '--manifest', 'june.manifest', '--save-manifest', 'july.manifest'],
      );
      expect(outcome.code).toBe(1);
      expect(outcome.out).toMatch(
        new RegExp(
          [
            'file-3: its bytes changed, though nobody has written it since',
            'file-4: page 7 is damaged',
            'since 20..-..-..T.*Z: 1 as they were, 1 written, 1 new, 1 removed',
            '5 files with 3.00 MiB hashed, 3.00 MiB/s, 2 damaged\n$',
          ].join('\n'),
        ),
      );
      expect(readFileSync(join(world.directory, 'july.manifest'), 'utf8')).not.toContain('file-4');
      expect(volume.calls).toEqual(['manifest', 'manifest store/volume', 'manifest store/volume']);
    });

    test('refuses what is no manifest, or not a whole one', async () => {
      const volume = await up();
      volume.contents = [entry(1, 'hash-1'), entry(2, 'hash-2')];
      await world.run('scrub', 'mnt', '--save-manifest', 'june.manifest');
      const text = readFileSync(saved(), 'utf8');
      const refusals: Array<[string | undefined, RegExp]> = [
        [undefined, /june.manifest cannot be read: ENOENT/],
        ['', /is damaged or cut short/],
        ['a: text\n', /is no content manifest/],
        [
          text.replace('"format":1', '"format":2'),
          /has format 2, this penstock knows 1; use a newer penstock/,
        ],
        [text.replace('hash-2', 'hash-3'), /is damaged or cut short: save another one/],
        [text.split('\n').slice(0, 2).join('\n'), /is damaged or cut short/],
        [text.slice(0, -20), /is damaged/],
      ];
      for (const [content, message] of refusals) {
        if (content === undefined) rmSync(saved());
        else writeFileSync(saved(), content);
        const outcome = await world.run('scrub', 'mnt', '--manifest', 'june.manifest');
        expect(outcome).toMatchObject({ code: 2, out: '', err: expect.stringMatching(message) });
      }
      expect(volume.calls).toEqual(['manifest']);
    });

    test('shows a bar on a terminal; Ctrl-C ends it and leaves no manifest, nor touches the one there was', async () => {
      const volume = await up();
      volume.contents = [entry(1, 'hash-1'), entry(2, 'hash-2')];
      world.terminal = true;
      const { err } = await world.run('scrub', 'mnt', '--save-manifest', 'june.manifest');
      expect(err).toMatch(/manifest .*of 2 B/);
      const before = readFileSync(saved(), 'utf8');
      world.terminal = false;
      volume.contents = Array.from({ length: 1000 }, (_, ino) => entry(ino, `hash-${ino}`));
      const scrubbing = world.run('scrub', 'mnt', '--save-manifest', 'june.manifest');
      await expect.poll(() => volume.calls).toEqual(['manifest', 'manifest']);
      world.signalLast();
      expect(await scrubbing).toMatchObject({
        code: 1,
        err: expect.stringMatching(/^penstock: .*was interrupted.*\n$/),
      });
      expect(readFileSync(saved(), 'utf8')).toBe(before);
      expect(readdirSync(world.directory)).not.toContain('june.manifest.new');
      const { out } = await world.run('scrub', 'mnt', '--save-manifest', 'none/june.manifest', '--json');
      expect(json({ out } as Outcome)).toMatchObject({ error: { code: 'ENOENT' } });
    });
  });

  test('gc, drain and warmup say what they did', async () => {
    const volume = await up();
    expect((await world.run('gc', 'mnt')).out).toBe(
      'dropped 2 versions that nothing refers to, freed 4.00 KiB\n',
    );
    expect(json(await world.run('drain', 'mnt', '--json'))).toEqual({ publishedBytes: 0, publishedFiles: 1 });
    expect((await world.run('warmup', 'mnt/models/a')).out).toBe(
      '2 files are cached, 8.00 KiB were fetched\n',
    );
    await world.run('warmup', 'mnt');
    expect(volume.calls).toEqual(['gc', 'drain', 'warmup models/a', 'warmup ']);
  });

  test('warmup of a symbolic link in the volume warms what it leads to', async () => {
    const volume = await up();
    mkdirSync(join(mnt(), 'models/v2'), { recursive: true });
    symlinkSync('models/v2', join(mnt(), 'newest'));
    await world.run('warmup', 'mnt/newest');
    rmSync(mnt(), { recursive: true });
    expect(volume.calls).toEqual(['warmup models/v2']);
  });

  test('a mount whose daemon does not listen yet, or any more, hides no other', async () => {
    await up();
    const runtime = RuntimeDirectory.open(world.environment);
    const mountpoint = join(world.directory, 'other');
    const holder = { ...thisProcess(), socket: join(runtime.root, 'none.sock'), store: 'file:x', mountpoint };
    takeClaim(runtime.mountClaim(mountpoint), holder);
    const all = await world.run('status', '--json');
    expect(all.code).toBe(0);
    expect(json(all)).toMatchObject([{ mountpoint: mnt() }]);
    expect(all.err).toBe(
      `penstock: process ${process.pid} is mounting or unmounting ${mountpoint}; ask again later\n`,
    );
    const one = await world.run('status', 'other', '--json');
    expect(one.code).toBe(1);
    expect(json(one)).toMatchObject({ error: { code: 'NOT_MOUNTED' } });
    // One that listens and has it not yet.
    takeClaim(runtime.mountClaim(`${mountpoint}-2`), {
      ...holder,
      socket: runtime.socket(process.pid),
      mountpoint: `${mountpoint}-2`,
    });
    const early = await world.run('status', 'other-2', '--json');
    expect(json(early)).toMatchObject({ error: { code: 'NOT_MOUNTED' } });
  });

  test.each([
    ['umount', 'elsewhere'],
    ['drain', 'elsewhere'],
    ['status', 'elsewhere'],
    ['warmup', 'elsewhere'],
    ['warmup', 'mnt-not'],
  ])('%s %s: nothing is mounted there', async (command, path) => {
    await up();
    const outcome = await world.run(command, path);
    expect(outcome.code).toBe(1);
    expect(outcome.err).toMatch(/^penstock: .*"penstock status" lists what is.*\n$/);
  });
});

describe('format', () => {
  test('makes a volume once', async () => {
    const argv = [
      'format',
      'file:store',
      '--name',
      'work',
      '--quota',
      '1GiB',
      '--quota-inodes',
      '1000',
      '--data',
      'file:d',
    ];
    expect(await world.run(...argv)).toMatchObject({
      code: 0,
      out: `made volume work in file:${world.directory}/store\n`,
    });
    expect(world.provider.formatted[0]).toEqual({
      store: `file:${world.directory}/store`,
      volume: 'work',
      data: `file:${world.directory}/d`,
      bytesQuota: 2 ** 30,
      inodesQuota: 1000,
    });
    expect(await world.run(...argv)).toMatchObject({
      code: 1,
      err: expect.stringMatching(/choose another --name\n$/),
    });
  });
});

describe('help and misuse', () => {
  const commands = [
    'up',
    'format',
    'mount',
    'umount',
    'drain',
    'warmup',
    'status',
    'stats',
    'fsck',
    'gc',
    'scrub',
    'lease',
    'switch',
  ];

  test('the help lists exactly the commands there are', async () => {
    const { code, out } = await world.run('--help');
    expect(code).toBe(0);
    expect([...out.matchAll(/^ {2}([a-z]+) /gm)].map((match) => match[1])).toEqual(commands);
  });

  test.each(commands)('%s --help shows an example and --json', async (command) => {
    const { code, out } = await world.run(command, '--help');
    expect(code).toBe(0);
    expect(out).toMatch(new RegExp(`Example:\n {2}\\$ penstock ${command} ?`));
    expect(out).toContain('--json');
  });

  test.each([
    [['mount', 'file:s'], /missing required argument 'mountpoint'; see "penstock mount --help"/],
    [['mount', 'nfs:s', 'm'], /"nfs:s" is not a store; expected file:DIRECTORY/],
    [['mount', 'file:s', 'm', '--cache-size', 'big'], /Expected a size such as 64MiB/],
    [['mount', 'file:s', 'm', '--cache-size', '1MiB'], /--cache-size must be at least 16.0 MiB/],
    [['mount', 'file:s', 'm', '--fsync', 'never'], /Allowed choices are local, remote/],
    [['unmount', 'm'], /unknown command 'unmount'.*see "penstock unmount --help"|unknown command 'unmount'/],
    [['status', '--jsno'], /unknown option '--jsno'.*Did you mean --json/],
    [['stats', 'm', '--count', '0'], /Expected a whole number above 0/],
    [['fsck', 'a', 'b'], /too many arguments/],
  ])('%j is exit code 2 and one line', async (argv, message) => {
    const { code, out, err } = await world.run(...argv);
    expect(code).toBe(2);
    expect(out).toBe('');
    expect(err).toMatch(message);
    expect(err).toMatch(/^penstock: [^\n]*\n$/);
  });

  test('misuse is JSON for a script', async () => {
    const { code, out, err } = await world.run('drain', '--json');
    expect(code).toBe(2);
    const message = 'missing required argument \'mountpoint\'; see "penstock drain --help"';
    expect(JSON.parse(out)).toEqual({ error: { code: 'MISUSE', message } });
    expect(err).toBe(`penstock: ${message}\n`);
  });

  test('no command at all shows the help and is misuse', async () => {
    const { code, err } = await world.run();
    expect(code).toBe(2);
    expect(err).toContain('Usage: penstock');
  });

  test('--version', async () => {
    expect(await world.run('--version')).toMatchObject({
      code: 0,
      out: expect.stringMatching(/^\d+\.\d+\.\d+\n$/),
    });
  });
});
