// What every source file owes its reader: it is formatted and lints clean, it type-checks, it opens with a comment that
// says what it is, and it leaves no note of unfinished work.
import { execFile, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { packageRoot } from '../../bindings/load.js';
import { sourceFiles } from '../support/source-files.js';

const FOLDERS = ['src', 'bindings', 'native', 'test', 'bench', 'examples'];
const TIMEOUT_MS = 120_000;

async function passes(program: string, argv: readonly string[]): Promise<void> {
  try {
    await promisify(execFile)(program, argv, { cwd: packageRoot(), maxBuffer: 16 << 20 });
  } catch (error) {
    const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string };
    expect.fail(`${program} ${argv.slice(0, 3).join(' ')}:\n${`${stdout}${stderr}`.slice(0, 8000) || error}`);
  }
}

test('biome: format and lint', { timeout: TIMEOUT_MS }, () =>
  passes('node_modules/.bin/biome', ['check', '.']),
);

test('TypeScript: no errors anywhere', { timeout: TIMEOUT_MS }, () =>
  passes('node_modules/.bin/tsc', ['-p', 'tsconfig.json', '--noEmit']),
);

// The layout that another version would choose differs in details, so that only this one can judge.
const clangFormat = 'clang-format-14';
const judge = spawnSync(clangFormat, ['--version']).status === 0;

test.skipIf(!judge)('clang-format 14', { timeout: TIMEOUT_MS }, () =>
  passes(clangFormat, ['--dry-run', '--Werror', ...sourceFiles(FOLDERS, /\.(cc|h)$/)]),
);

test('every source file opens with a comment, or implements a header that does', () => {
  const opens = (file: string) =>
    /^(#!.*\n)?(\/\/|\/\*)/.test(readFileSync(join(packageRoot(), file), 'utf8'));
  const files = sourceFiles(FOLDERS, /\.(ts|mjs|cc|h)$/);
  const silent = files.filter((file) => {
    const header = file.replace(/\.cc$/, '.h');
    return !opens(file) && !(header !== file && files.includes(header) && opens(header));
  });
  expect(silent).toEqual([]);
});

test('no unfinished work is left in the sources', () => {
  const note = new RegExp(`\\b(${['TO' + 'DO', 'FIX' + 'ME'].join('|')})\\b`);
  const unfinished = sourceFiles(FOLDERS, /\.(ts|mjs|cc|h)$/).filter((file) =>
    note.test(readFileSync(join(packageRoot(), file), 'utf8')),
  );
  expect(unfinished).toEqual([]);
});
