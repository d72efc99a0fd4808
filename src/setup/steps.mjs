// The steps of the set-up after the system packages: npm dependencies, native builds, TypeScript. Each looks whether it
// is current, says its one line only when it does something, and leaves a stamp.
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { ROOT, run } from './run.mjs';
import { contentHash, isCurrent, writeStamp } from './stamp.mjs';

export async function npmDependencies({ say }) {
  if (installedMatchesLock()) return;
  say('npm dependencies');
  // Not `npm ci`: it refuses a lock file made where the registry lacks binaries of foreign platforms. This takes the same
  // versions with the same checksums, and leaves the lock file alone.
  await run('npm', ['install', '--no-save', '--ignore-scripts', '--no-audit', '--no-fund'], {
    log: 'npm',
    advice: 'check that the npm registry can be reached (npm ping)',
  });
}

/** Every package that the lock file names is installed in that version (optional ones of other platforms may be absent). */
function installedMatchesLock() {
  const path = join(ROOT, 'node_modules/.package-lock.json');
  if (!existsSync(path)) return false;
  const wanted = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')).packages;
  const installed = JSON.parse(readFileSync(path, 'utf8')).packages;
  return Object.entries(wanted).every(([name, { version, optional }]) => {
    if (name === '') return true;
    if (installed[name] === undefined) return optional === true;
    return installed[name].version === version && existsSync(join(ROOT, name));
  });
}

/** raw-socket ships no binary; fuse-native ships one that needs no build. */
export async function dependencyAddons({ say }) {
  const output = 'node_modules/raw-socket/build/Release/raw.node';
  const hash = contentHash(['node_modules/raw-socket/src'], () => true, [
    process.versions.modules,
    process.arch,
  ]);
  if (isCurrent('build/.stamp-raw-socket', hash, [output])) return;
  say('raw-socket (native dependency)');
  await nodeGyp(['rebuild', '--directory=node_modules/raw-socket'], 'raw-socket');
  writeStamp('build/.stamp-raw-socket', hash);
}

export async function addon({ say }) {
  const sources = contentHash(['native', 'bindings'], (name) => /\.(cc|h)$/.test(name), [
    readFileSync(join(ROOT, 'binding.gyp'), 'utf8'),
    JSON.parse(readFileSync(join(ROOT, 'node_modules/node-addon-api/package.json'), 'utf8')).version,
    process.version,
    process.arch,
    compilerVersion(),
  ]);
  if (isCurrent('build/.stamp-addon', sources, ['build/Release/penstock.node'])) return;
  say('native addon');
  await nodeGyp(['configure', 'build', '-j', String(availableParallelism())], 'addon');
  writeStamp('build/.stamp-addon', sources);
}

export async function typescript({ say }) {
  const hash = contentHash(['src', 'bindings', 'examples'], (name) => /\.ts$/.test(name), [
    readFileSync(join(ROOT, 'tsconfig.json'), 'utf8'),
    readFileSync(join(ROOT, 'tsconfig.build.json'), 'utf8'),
    JSON.parse(readFileSync(join(ROOT, 'node_modules/typescript/package.json'), 'utf8')).version,
  ]);
  if (isCurrent('dist/.stamp', hash, ['dist/src/cli/main.js'])) return;
  say('TypeScript');
  await run(process.execPath, ['node_modules/typescript/bin/tsc', '-p', 'tsconfig.build.json'], {
    log: 'typescript',
    advice: 'the sources do not compile; correct the errors above',
  });
  writeStamp('dist/.stamp', hash);
}

async function nodeGyp(argv, log) {
  const headers = nodeHeaders();
  await run(
    process.execPath,
    [
      'node_modules/node-gyp/bin/node-gyp.js',
      ...argv,
      ...(headers === undefined ? [] : [`--nodedir=${headers}`]),
    ],
    {
      log,
      advice:
        headers === undefined
          ? 'node-gyp also needs the network for Node headers'
          : 'the compiler says why above',
    },
  );
}

/** The prefix whose include/node has the headers of this very Node, so that nothing needs to be downloaded. */
function nodeHeaders() {
  const prefix = dirname(dirname(process.execPath));
  const version = join(prefix, 'include/node/node_version.h');
  if (!existsSync(version)) return undefined;
  const text = readFileSync(version, 'utf8');
  const part = (name) => new RegExp(`#define NODE_${name}_VERSION (\\d+)`).exec(text)?.[1];
  return `v${part('MAJOR')}.${part('MINOR')}.${part('PATCH')}` === process.version ? prefix : undefined;
}

function compilerVersion() {
  return execFileSync('c++', ['-dumpfullversion'], { encoding: 'utf8' }).trim();
}
