// The offsets that the TypeScript codec uses are those the C++ compiler chose.
import { expect, test } from 'vitest';
import { fuseLayout } from '../../bindings/fuse.js';
import * as layout from '../../src/gateway/transports/native/layout.js';

type Fields = Readonly<Record<string, number>>;
const constants: ReadonlyArray<[string, unknown]> = Object.entries(layout);
const structures = constants.filter((entry): entry is [string, Fields] => typeof entry[1] === 'object');

test.each(structures)('%s lies as native code has it', (name, fields) => {
  for (const [field, value] of Object.entries(fields)) {
    const key = field === 'bytes' ? `sizeof ${name}` : `${name}.${field}`;
    expect([key, value]).toEqual([key, fuseLayout[key]]);
  }
});

test('every exported structure has its constants', () => {
  const known = new Set(structures.map(([name]) => `sizeof ${name}`));
  const missing = Object.keys(fuseLayout).filter((key) => key.startsWith('sizeof ') && !known.has(key));
  expect(missing).toEqual([]);
});

test('record kinds and flags agree', () => {
  expect(layout.RECORD_SKIP).toBe(fuseLayout.kRecordSkip);
  expect(layout.RECORD_ENDED).toBe(fuseLayout.kRecordEnded);
  expect(layout.RECORD_DATA_NEED).toBe(fuseLayout.kRecordDataNeed);
  expect(layout.RECORD_FORGOTTEN).toBe(fuseLayout.kRecordForgotten);
  expect(layout.NO_SLOT).toBe(fuseLayout.kNoSlot);
  expect(layout.OPEN_SIMPLE_RELEASE).toBe(fuseLayout.kOpenSimpleRelease);
  expect([
    fuseLayout['UpcallRing.tail'],
    fuseLayout['UpcallRing.sleeping'],
    fuseLayout['UpcallRing.data'],
  ]).toEqual([64, 128, 256]);
});
