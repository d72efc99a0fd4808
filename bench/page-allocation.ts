// What taking a page of an extent costs, in batches, at 50 % and 5 % free, on an aged extent, and at worst.
//
//   node_modules/.bin/tsc -p . --outDir build/js && node build/js/bench/page-allocation.js
//
// The measured code is native (page-allocation.cc), compiled as the addon is; the claim is tens of nanoseconds a page in
// batches of 16 pages or more.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { packageRoot } from '../bindings/load.js';

function run(command: string, args: readonly string[]): void {
  const { status, error } = spawnSync(command, args, { cwd: packageRoot(), stdio: 'inherit' });
  if (error !== undefined) throw error;
  if (status !== 0) throw new Error(`${command} ended with ${status}`);
}

const directory = mkdtempSync(join(tmpdir(), 'penstock-bench-'));
try {
  const program = join(directory, 'page-allocation');
  const sources = ['bench/page-allocation.cc', 'native/extent/page_allocator.cc'];
  run(process.env.CXX ?? 'c++', ['-std=c++20', '-O2', '-I.', ...sources, '-o', program]);
  run(program, []);
} finally {
  rmSync(directory, { recursive: true, force: true });
}
