// `npx penstock` in a checkout: npm links the package into a cache of its own first, and runs its install script.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { packageRoot } from '../../bindings/load.js';
import { command } from '../support/command.js';

let checkout: string;

beforeEach(() => {
  checkout = mkdtempSync(join(tmpdir(), 'penstock-npx-'));
});

afterEach(() => rmSync(checkout, { recursive: true }));

function put(path: string, content: string, mode = 0o644): void {
  mkdirSync(dirname(join(checkout, path)), { recursive: true });
  writeFileSync(join(checkout, path), content, { mode });
}

test('the first call leaves what set-up has built as it is', async () => {
  const { name, version, bin, gypfile, scripts } = JSON.parse(
    readFileSync(join(packageRoot(), 'package.json'), 'utf8'),
  );
  put('package.json', JSON.stringify({ name, version, bin, gypfile, scripts: { install: scripts.install } }));
  // Whoever builds fails.
  put('binding.gyp', 'not a build file');
  put('build/.stamp-addon', '');
  put('build/Release/penstock.node', 'as built');
  put(bin.penstock, '#!/usr/bin/env node\nconsole.log("ran", ...process.argv.slice(2));\n', 0o755);
  const env = { ...process.env, npm_config_cache: join(checkout, 'cache'), npm_config_offline: 'true' };
  const out = await command('npx', ['penstock', 'status'], { cwd: checkout, env, timeoutMs: 60_000 });
  expect(out.trim()).toBe('ran status');
  expect(readFileSync(join(checkout, 'build/Release/penstock.node'), 'utf8')).toBe('as built');
});
