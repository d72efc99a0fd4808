// The configuration: what it accepts, and that a mistake is named by its path with what is allowed there.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { embeddedDefault, loadConfig, parseConfig } from '../../src/daemon/config.js';
import { formatSize, parseSize } from '../../src/daemon/size.js';
import { defaultCacheDirectory } from '../../src/daemon/volume-defaults.js';

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'penstock-config-'));
});
afterAll(() => rmSync(directory, { recursive: true }));

describe('sizes', () => {
  test.each([
    ['0', 0],
    ['4096', 4096],
    ['64MiB', 64 * 2 ** 20],
    ['10G', 10 * 2 ** 30],
    ['10 gib', 10 * 2 ** 30],
    ['1.5k', 1536],
    ['2MB', 2_000_000],
    ['1T', 2 ** 40],
  ])('%s is %d bytes', (text, bytes) => expect(parseSize(text)).toBe(bytes));

  test.each(['', 'ten', '-1', '10X', '1e3', '9999999T', '5iB'])('"%s" is not a size', (text) =>
    expect(parseSize(text)).toBeUndefined(),
  );

  test('shown with three digits', () => {
    expect([0, 999, 1536, 20 * 2 ** 20, 1023 * 2 ** 20, 2 ** 41].map(formatSize)).toEqual([
      '0 B',
      '999 B',
      '1.50 KiB',
      '20.0 MiB',
      '1.00 GiB',
      '2.00 TiB',
    ]);
  });
});

describe('penstock.yaml', () => {
  const load = (text: string) => {
    const path = join(directory, 'penstock.yaml');
    writeFileSync(path, text);
    return loadConfig(path);
  };

  test('given only what must be said, the rest has defaults and paths are relative to the file', () => {
    const { volumes, log } = load('volumes:\n  - { store: "file:store", mountpoint: m }\n');
    expect(log).toEqual({ level: 'info' });
    expect(volumes[0]).toMatchObject({
      store: `file:${directory}/store`,
      name: 'default',
      mountpoint: `${directory}/m`,
      cacheDirectory: defaultCacheDirectory(`file:${directory}/store`, 'default'),
      transport: 'native',
      fsync: 'local',
      readOnly: false,
      format: false,
    });
    expect(volumes[0]!.cacheBytes).toBeGreaterThanOrEqual(16 * 2 ** 20);
    expect(volumes[0]!.cacheBytes).toBeLessThanOrEqual(10 * 2 ** 30);
  });

  test('given everything, everything is taken', () => {
    const { volumes, log } = load(`
log: { level: debug, file: p.log }
volumes:
  - store: file:/srv/store
    name: work
    mountpoint: /mnt/work
    cache: { directory: /var/cache/p, size: 64MiB, dirty: 16MiB }
    transport: fuse-native
    fsync: remote
    readOnly: true
    options: [allow_other]
    format: true
`);
    expect(log).toEqual({ level: 'debug', file: `${directory}/p.log` });
    expect(volumes[0]).toEqual({
      store: 'file:/srv/store',
      name: 'work',
      mountpoint: '/mnt/work',
      cacheDirectory: '/var/cache/p',
      cacheBytes: 64 * 2 ** 20,
      dirtyBytes: 16 * 2 ** 20,
      transport: 'fuse-native',
      fsync: 'remote',
      readOnly: true,
      mountOptions: ['allow_other'],
      format: true,
      createMountpoint: false,
    });
  });

  test.each([
    ['{}', 'volumes: missing, expected at least one of volumes, lease and switch'],
    ['volumes: []', 'volumes: expected at least one volume'],
    ['volumes: 3', 'volumes: expected array'],
    [
      '{ volumes: [{ store: "file:s", mountpoint: m }], swich: 1 }',
      'unknown key "swich" (allowed: log, volumes, lease, switch)',
    ],
    [
      'volumes: [{ store: "file:s", mountpoint: m, fsync: never }]',
      'volumes[0].fsync: expected one of local, remote',
    ],
    [
      'volumes: [{ store: "nfs:s", mountpoint: m }]',
      'volumes[0].store: expected file:DIRECTORY, got "nfs:s"',
    ],
    [
      'volumes: [{ store: "file:s", mountpoint: m, cache: { directory: c, size: tenGB } }]',
      'volumes[0].cache.size: expected a size such as 64MiB or 10G, got "tenGB"',
    ],
    [
      'volumes: [{ store: "file:s", mountpoint: m, cache: { directory: c, size: 1M } }]',
      'volumes[0].cache.size: expected at least 16MiB',
    ],
    [
      'volumes: [{ store: "file:s", mountpoint: m, cache: { directory: c, bytes: 1 } }]',
      'volumes[0].cache: unknown key "bytes" (allowed: directory, size, dirty)',
    ],
    ['volumes: [', 'is not YAML: '],
  ])('%s is refused: %s', (text, message) => {
    expect(() => load(text)).toThrow(message);
    expect(() => load(text)).toThrow(expect.objectContaining({ code: 'CONFIG' }));
  });

  test('a file that cannot be read is named', () => {
    expect(() => loadConfig(join(directory, 'absent.yaml'))).toThrow(/cannot read .*absent\.yaml/);
  });
});

test('the embedded default lives below one directory', () => {
  expect(embeddedDefault(directory).volumes).toEqual([
    expect.objectContaining({
      store: `file:${directory}/.penstock/store`,
      name: 'default',
      mountpoint: `${directory}/mnt`,
      cacheDirectory: `${directory}/.penstock/cache`,
      format: true,
      createMountpoint: true,
    }),
  ]);
  expect(() => parseConfig({ volumes: [] }, directory, 'x')).toThrow(
    'x: volumes: expected at least one volume',
  );
});

test.each([
  ['mountpoint', { mountpoint: 'a/b' }],
  ['store', { store: 'file:a/store' }],
  ['cache.directory', { cache: { directory: 'a/cache' } }],
])('a daemon opens nothing in a mount of its own: %s', (key, part) => {
  const volume = (name: string) => ({
    store: `file:s-${name}`,
    mountpoint: name,
    cache: { directory: `c-${name}` },
  });
  const volumes = [volume('a'), { ...volume('ab'), ...part }];
  expect(() => parseConfig({ volumes }, '/d', 'test')).toThrow(
    expect.objectContaining({ code: 'CONFIG', message: expect.stringContaining(`volumes[1].${key}: /d/a`) }),
  );
  expect(parseConfig({ volumes: [volume('a'), volume('ab')] }, '/d', 'test').volumes).toHaveLength(2);
});
