// The store below the volumes: format, identity of nodes, volumes that do not see each other; and the small pure parts.
import { expect, test } from 'vitest';
import { formatKey } from '../../src/metadata/keys.js';
import { checkName, NameHash } from '../../src/metadata/name-hash.js';
import { MetadataService } from '../../src/metadata/service.js';
import { SipHash } from '../../src/metadata/siphash.js';
import { formatStore } from '../../src/metadata/store.js';
import { closed, codeOf, makeBench, makeVolume, memoryEngines, name, REG, root } from './support.js';

test('a store is formatted once, and opened only as what it is', async () => {
  const engines = memoryEngines(3);
  expect(await codeOf(MetadataService.open(engines))).toBe('ENODATA');
  await formatStore(engines);
  expect(await codeOf(formatStore(engines))).toBe('EEXIST');
  expect(await codeOf(MetadataService.open([engines[1]!, engines[0]!, engines[2]!]))).toBe('EINVAL');
  expect(await codeOf(MetadataService.open(engines.slice(0, 2)))).toBe('EINVAL');
  const other = memoryEngines(3);
  await formatStore(other);
  expect(await codeOf(MetadataService.open([engines[0]!, engines[1]!, other[2]!]))).toBe('EINVAL');
  expect(await codeOf(MetadataService.open(engines))).toBe('none');
});

test('a newer format is refused with one line that says what to do', async () => {
  const engines = memoryEngines(1);
  await formatStore(engines);
  await engines[0]!.transact((txn) => {
    const record = Buffer.from(txn.get(formatKey()) as Buffer);
    record.writeUInt32LE(2, 8);
    txn.put(formatKey(), record);
  });
  const failure = await MetadataService.open(engines).catch((error: Error) => error);
  expect(failure).toMatchObject({ code: 'EPROTONOSUPPORT' });
  expect((failure as Error).message).toBe(
    'the metadata store has format 2, this penstock knows 1; use a newer penstock',
  );
});

test('a format that was cut off by a crash can be repeated', async () => {
  const engines = memoryEngines(3);
  await formatStore(engines);
  // The first node is written last: a crash before that leaves a store that says nothing.
  await engines[0]!.transact((txn) => txn.delete(formatKey()));
  expect(await codeOf(MetadataService.open(engines))).toBe('ENODATA');
  expect(await codeOf(formatStore(engines))).toBe('none');
  const { service } = await makeVolume(engines);
  // A node of a store in use is not taken for the rest of such a crash.
  expect(await codeOf(formatStore([...memoryEngines(1), ...engines.slice(0, 1)]))).toBe('EEXIST');
  expect((await service.fsck('v')).findings).toEqual([]);
});

test('volumes of one store do not see each other', async () => {
  const engines = memoryEngines(1);
  const { service, volume } = await makeBench(engines, { inodesQuota: 5 });
  await service.createVolume('w', { bytesQuota: 8192 });
  await service.createVolume('v', { tenant: 'other' });
  expect(await codeOf(service.createVolume('v'))).toBe('EEXIST');
  expect(await codeOf(service.createVolume('a/b'))).toBe('EINVAL');
  expect(await codeOf(service.volume('nope'))).toBe('ENOENT');
  const second = await service.volume('w');
  await volume.makeNode(root, 1, name('only-here'), REG | 0o644, 0);
  expect(await second.readDirectory(root, 1, 0n, 10, false)).toEqual([]);
  expect((await second.statistics()).inodesUsed).toBe(1);
  expect((await second.statistics()).bytesTotal).toBe(8192);
  expect((await service.volumes()).map(({ tenant, name: text }) => `${tenant}/${text}`)).toEqual([
    'default/v',
    'default/w',
    'other/v',
  ]);
  expect(await service.volume('v')).toBe(volume);
  for (const [text, tenant] of [['v'], ['w'], ['v', 'other']] as const) {
    expect((await service.fsck(text, tenant)).findings).toEqual([]);
  }
});

test('what was acknowledged is there after a restart', async () => {
  const engines = memoryEngines(3);
  const { volume } = await makeBench(engines);
  const dir = await volume.makeDirectory(root, 1, name('d'), 0o755);
  await volume.makeNode(root, dir.ino, name('f'), REG | 0o644, 0);
  const again = await MetadataService.open(engines.map((engine) => engine.crash({ keep: 'all' })));
  const reopened = await again.volume('v');
  expect((await reopened.lookup(root, 1, name('d'))).ino).toBe(dir.ino);
  const file = await reopened.makeNode(root, dir.ino, name('g'), REG | 0o644, 0);
  expect(await codeOf(reopened.unlink(root, dir.ino, name('f'), closed))).toBe('none');
  expect((await reopened.lookup(root, dir.ino, name('g'))).ino).toBe(file.ino);
  expect((await again.fsck('v')).findings).toEqual([]);
});

test('SipHash-2-4 gives the published values', () => {
  const key = Buffer.from([...Array(16).keys()]);
  const hash = new SipHash(key);
  // https://github.com/veorq/SipHash, vectors.h: input 00 01 02 ... of growing length.
  const published: Record<number, string> = {
    0: '310e0edd47db6f72',
    1: 'fd67dc93c539f874',
    7: '37d1018bf50002ab',
    8: '6224939a79f5f593',
    15: 'e545be4961ca29a1',
    63: '724506eb4c328a95',
  };
  for (const [length, expected] of Object.entries(published)) {
    const { high, low } = hash.hash(Buffer.from([...Array(Number(length)).keys()]));
    const bytes = Buffer.alloc(8);
    bytes.writeUInt32LE(low, 0);
    bytes.writeUInt32LE(high, 4);
    expect(bytes.toString('hex')).toBe(expected);
  }
});

test('name hashes leave the small cookies free and fit 62 bits', () => {
  const names = new NameHash(Buffer.alloc(16), 3);
  for (let n = 0; n < 200; n++) {
    const { high, low } = names.of(name(`n${n}`));
    expect(high).toBe(0);
    expect(low).toBeGreaterThanOrEqual(16);
  }
  const full = new NameHash(Buffer.alloc(16));
  for (let n = 0; n < 2000; n++) expect(full.of(name(`n${n}`)).high).toBeLessThan(2 ** 30);
  expect(() => checkName(name('..'))).toThrow();
  expect(() => checkName(name('...'))).not.toThrow();
});
