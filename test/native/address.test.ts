// Every case of test/native/*_test.cc under the address and undefined-behaviour sanitizers.
import { expect, test } from 'vitest';
import { ADDRESS } from '../support/native-build.js';
import { declareNativeTests, nativeTests } from '../support/native-suite.js';

await declareNativeTests(ADDRESS);

test('there are native tests, and each has a name that says what it covers', () => {
  expect(nativeTests).not.toEqual([]);
  for (const name of nativeTests) expect(name).toMatch(/^[a-z0-9_]+_test$/);
});
