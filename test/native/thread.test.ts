// The cases of test/native/*_test.cc under the thread sanitizer: in a file of its own, so that both halves run side by side.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { packageRoot } from '../../bindings/load.js';
import { THREAD } from '../support/native-build.js';
import { declareNativeTests, nativeTests } from '../support/native-suite.js';

/** Long histories on one thread, which the other sanitizers watch: there is nothing here for this one to see. */
const ON_ONE_THREAD = new Set([
  'cache_compaction_test',
  'cache_full_disk_test',
  'cache_history_test',
  'cache_host_test',
  'cache_map_test',
  'extent_crash_test',
]);

await declareNativeTests(
  THREAD,
  nativeTests.filter((name) => !ON_ONE_THREAD.has(name)),
);

test('what is left out is there, and begins no thread', () => {
  for (const name of ON_ONE_THREAD) {
    expect(nativeTests).toContain(name);
    expect(readFileSync(join(packageRoot(), `test/native/${name}.cc`), 'utf8')).not.toMatch(/std::j?thread/);
  }
});
