// Runs one command of the set-up with its output in build/setup-<log>.log; when it fails, the tail of that log and what to
// do about it are the error.
import { spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** Of a long log both ends are shown: some programs give the reason first, some last. */
const HEAD_LINES = 10;
const TAIL_LINES = 20;

/** An error that is shown as its message alone: the reader can act on it, a stack would not help. */
export class SetupFailure extends Error {
  name = 'SetupFailure';
}

export async function run(program, argv, { log, advice, env = process.env }) {
  const directory = join(ROOT, 'build');
  mkdirSync(directory, { recursive: true });
  const path = join(directory, `setup-${log}.log`);
  const output = openSync(path, 'w');
  try {
    const code = await new Promise((resolve, reject) => {
      const child = spawn(program, argv, { cwd: ROOT, env, stdio: ['ignore', output, output] });
      child.once('error', (error) =>
        reject(new SetupFailure(`cannot run ${program}: ${error.message}; ${advice}`)),
      );
      child.once('close', (exitCode, signal) => resolve(signal ?? exitCode));
    });
    if (code === 0) return;
    throw new SetupFailure(
      `${ends(readFileSync(path, 'utf8'))}\n\n${program} ${argv[0]} failed (${code}); ${advice}. Whole log: ${path}`,
    );
  } finally {
    closeSync(output);
  }
}

function ends(log) {
  const lines = log.trimEnd().split('\n');
  if (lines.length <= HEAD_LINES + TAIL_LINES) return lines.join('\n');
  return [...lines.slice(0, HEAD_LINES), '...', ...lines.slice(-TAIL_LINES)].join('\n');
}
