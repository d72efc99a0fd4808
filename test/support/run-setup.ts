// Brings the compiled library and command line up to date, for tests that start processes of it.
import { spawnSync } from 'node:child_process';
import { packageRoot } from '../../bindings/load.js';

export function runSetup(): void {
  const { status, stderr } = spawnSync(process.execPath, ['src/setup/setup.mjs'], {
    cwd: packageRoot(),
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`the set-up failed: ${stderr}`);
}
