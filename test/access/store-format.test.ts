// The format of a store: an older one is raised when it is opened, a newer one refused with nothing touched.
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createPageBuffer } from '../../bindings/extent.js';
import { EmbeddedService, formatEmbedded, STORE_FORMAT } from '../../src/access/embedded-service.js';
import { systemClock } from '../../src/telemetry/clock.js';

let directory: string;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'penstock-format-'));
  await formatEmbedded(directory, 'work', {}, false);
});
afterEach(() => rmSync(directory, { recursive: true }));

const path = () => join(directory, 'penstock.json');
const identity = () => JSON.parse(readFileSync(path(), 'utf8')) as { format: number; id: string };
const setFormat = (format: unknown) =>
  writeFileSync(path(), `${JSON.stringify({ ...identity(), format })}\n`);
const open = () => EmbeddedService.open(directory, { clock: systemClock, pages: createPageBuffer(4096) });

/** Every way to the store's metadata: each may commit, and so each must raise an older format first. */
const ways: Record<string, () => Promise<unknown>> = {
  'opening it': async () => {
    const service = await open();
    await service[Symbol.asyncDispose]();
  },
  'asking for a volume': () => EmbeddedService.requireVolume(directory, 'work'),
  'making a volume': () => formatEmbedded(directory, 'other', {}, true),
};

test.each(Object.entries(ways))('%s raises an older format, and keeps the identity', async (_, way) => {
  const { id } = identity();
  setFormat(STORE_FORMAT - 1);
  await way();
  expect(identity()).toEqual({ format: STORE_FORMAT, id });
  await EmbeddedService.requireVolume(directory, 'work');
});

test.each(Object.entries(ways))('%s refuses a newer format, which stays as it is', async (_, way) => {
  setFormat(STORE_FORMAT + 1);
  await expect(way()).rejects.toMatchObject({
    code: 'EPROTONOSUPPORT',
    message: `the store in ${directory} has format ${STORE_FORMAT + 1}, this penstock knows ${STORE_FORMAT}; use a newer penstock`,
  });
  expect(identity().format).toBe(STORE_FORMAT + 1);
  setFormat(STORE_FORMAT);
  await ways['opening it']!();
});

test('a store in use is not raised under whoever has it open', async () => {
  const service = await open();
  try {
    setFormat(STORE_FORMAT - 1);
    await expect(EmbeddedService.requireVolume(directory, 'work')).rejects.toMatchObject({
      code: 'KV_LOCKED',
    });
    expect(identity().format).toBe(STORE_FORMAT - 1);
  } finally {
    await service[Symbol.asyncDispose]();
  }
});

test.each([undefined, 'two', 1.5])('an identity with format %s is damaged', async (format) => {
  setFormat(format);
  await expect(open()).rejects.toMatchObject({ code: 'EIO', message: expect.stringContaining('is damaged') });
});

test('a store that has lost its identity is not made anew over what it holds', async () => {
  const text = readFileSync(path());
  rmSync(path());
  await expect(formatEmbedded(directory, 'work', {}, true)).rejects.toMatchObject({
    code: 'ENOTEMPTY',
    message: `${join(directory, 'metadata')} is there, but no penstock.json beside it: restore that file if this was a store, else choose another directory`,
  });
  writeFileSync(path(), text);
  await EmbeddedService.requireVolume(directory, 'work');
});

test.each(['metadata', 'data'])(
  'a directory in which somebody keeps "%s" is no place for a store',
  async (part) => {
    const kept = join(directory, 'elsewhere', part, 'kept');
    mkdirSync(kept, { recursive: true });
    await expect(formatEmbedded(join(directory, 'elsewhere'), 'work', {}, false)).rejects.toMatchObject({
      code: 'ENOTEMPTY',
    });
    expect(existsSync(kept)).toBe(true);
    rmSync(kept, { recursive: true });
    await formatEmbedded(join(directory, 'elsewhere'), 'work', {}, false);
  },
);

test('a store whose making was cut off is made anew', async () => {
  renameSync(path(), `${path()}.making`);
  await formatEmbedded(directory, 'again', {}, false);
  await EmbeddedService.requireVolume(directory, 'again');
  await expect(EmbeddedService.requireVolume(directory, 'work')).rejects.toMatchObject({ code: 'ENOENT' });
  expect(existsSync(`${path()}.making`)).toBe(false);
});
