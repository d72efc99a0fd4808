// Programs that a benchmark compiles and runs.
import { execFileSync } from 'node:child_process';
import { packageRoot } from '../bindings/load.js';

/** What `program` prints, run in the project's folder; its complaints go to our standard error. Throws when it fails. */
export function output(program: string, argv: readonly string[]): string {
  return execFileSync(program, argv, {
    cwd: packageRoot(),
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  });
}
