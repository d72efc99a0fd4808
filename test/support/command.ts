// Runs a program to its end for a test: what it printed, or an error that says what failed and how.
import { spawn, spawnSync } from 'node:child_process';

export interface CommandOptions {
  readonly cwd?: string;
  readonly input?: string;
  readonly timeoutMs?: number;
  readonly env?: NodeJS.ProcessEnv;
}

export function command(
  program: string,
  argv: readonly string[],
  options: CommandOptions = {},
): Promise<string> {
  const { timeoutMs = 120_000, input = '' } = options;
  return new Promise((resolve, reject) => {
    const child = spawn(program, argv, {
      cwd: options.cwd,
      env: options.env ?? process.env,
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    let stdout = '';
    let stderr = '';
    const watchdog = setTimeout(() => {
      child.kill('SIGKILL');
      reject(new Error(`hang: ${program} ${argv.join(' ')}: no end in ${timeoutMs} ms\n${stderr}`));
    }, timeoutMs);
    child.stdout.on('data', (text) => {
      stdout += text;
    });
    child.stderr.on('data', (text) => {
      stderr += text;
    });
    child.stdin.on('error', () => {});
    child.stdin.end(input);
    child.on('error', reject);
    child.on('close', (code, signal) => {
      clearTimeout(watchdog);
      if (code === 0) resolve(stdout);
      else
        reject(
          new Error(
            `${program} ${argv.join(' ')}: ${signal ?? code}\n${stderr.slice(-20_000)}${stdout.slice(-4000)}`,
          ),
        );
    });
  });
}

/** For `it.skipIf`: true (and the reason on stderr) when a program that a test needs is not installed. */
export function lacks(program: string): boolean {
  const missing = spawnSync('sh', ['-c', `command -v ${program}`]).status !== 0;
  if (missing) process.stderr.write(`left out what needs ${program}: it is not installed\n`);
  return missing;
}
