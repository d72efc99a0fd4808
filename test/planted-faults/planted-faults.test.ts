// The list of planted faults is up to date: every edit applies to the sources as they are, every named test exists, and
// the document shows all of them. `npm run planted-faults` is what shows that each is caught.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { packageRoot } from '../../bindings/load.js';
import { isNative, plant } from './fault.js';
import { FAULTS } from './faults.js';
import { documented } from './table.js';

const read = (file: string): string => readFileSync(join(packageRoot(), file), 'utf8');

describe.each(FAULTS)('$name', (fault) => {
  test('its edit applies, and changes something', () => {
    const source = read(fault.file);
    expect(plant(fault, source)).not.toBe(source);
  });

  test('its test exists', () => {
    const { caughtBy } = fault;
    if (isNative(caughtBy)) {
      expect(read(`test/native/${caughtBy.binary}.cc`)).toContain(`TEST_CASE("${caughtBy.testCase}")`);
      return;
    }
    const source = read(caughtBy.source ?? caughtBy.file);
    const found = ['test', 'it', 'what: '].some((call) =>
      ["'", '"', '`'].some((quote) =>
        source.includes(`${call === 'what: ' ? call : `${call}(`}${quote}${caughtBy.title}${quote}`),
      ),
    );
    expect(found, `${caughtBy.source ?? caughtBy.file} has no test "${caughtBy.title}"`).toBe(true);
  });
});

test('names are unique, and there are at least fifteen', () => {
  expect(new Set(FAULTS.map(({ name }) => name)).size).toBe(FAULTS.length);
  expect(FAULTS.length).toBeGreaterThanOrEqual(15);
});

test('docs/planted-faults.md shows the list as it is', () => {
  expect(read('docs/planted-faults.md')).toContain(documented());
});
