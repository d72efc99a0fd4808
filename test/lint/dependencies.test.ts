// Dependencies point down only. The two tables below are the picture of docs/ARCHITECTURE in a form that a machine checks:
// what a folder of src/ or native/ may import or include. Types cost nothing at run time, so `import type` is free, and a
// contract file (src/*/contract.ts, src/kv/engine.ts) may be imported by everyone on its side.
import { readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { describe, expect, test } from 'vitest';
import { packageRoot } from '../../bindings/load.js';
import { sourceFiles } from '../support/source-files.js';

const GROUND = ['kv', 'rpc', 'telemetry'];
const STORAGE_SIDE = ['metadata', 'storage', 'access', 'gateway'];
const ROLES = ['network', 'lease', 'migration'];

const MAY_IMPORT: Record<string, readonly string[]> = {
  setup: [],
  telemetry: [],
  rpc: ['telemetry'],
  kv: ['rpc', 'telemetry', 'bindings'],
  metadata: [...GROUND, 'bindings'],
  storage: [...GROUND, 'bindings'],
  access: [...GROUND, 'metadata', 'storage'],
  gateway: [...GROUND, 'access', 'bindings'],
  network: [...GROUND, 'bindings'],
  lease: [...GROUND],
  migration: [...GROUND, 'bindings'],
  daemon: [...GROUND, 'gateway', 'access', ...ROLES],
  cli: [...GROUND, 'daemon', 'gateway', 'access', ...ROLES],
  'index.ts': [...GROUND, 'daemon', 'gateway', 'access', ...ROLES],
  bindings: [],
};

const MAY_INCLUDE: Record<string, readonly string[]> = {
  base: [],
  bpf: ['base'],
  packet: ['base'],
  offload: ['base', 'packet'],
  pipeline: ['base', 'packet', 'offload'],
  port: ['base', 'packet', 'offload', 'pipeline'],
  switch: ['base', 'bpf', 'packet', 'offload', 'pipeline', 'port'],
  extent: ['base'],
  cache: ['base', 'fuse'],
  fuse: ['base'],
  kv: ['base'],
};

interface Import {
  readonly from: string;
  readonly line: string;
  readonly typeOnly: boolean;
}

/** Static imports, re-exports and dynamic imports of a relative module, as paths from the package root. */
function importsOf(file: string, text: string): Import[] {
  const pattern =
    /(?:^|\n)\s*((?:import|export)\s+(type\s+)?[^;'"]*?from\s*|import\s*)['"](\.[^'"]+)['"]|import\(\s*['"](\.[^'"]+)['"]/g;
  return [...text.matchAll(pattern)].map((match) => ({
    from: normalize(join(dirname(file), match[3] ?? match[4]!)),
    line: match[0].trim().replace(/\s+/g, ' '),
    typeOnly: match[2] !== undefined,
  }));
}

/** 'src/access/contract.js' -> 'access', 'src/index.js' -> 'index.ts', 'bindings/load.js' -> 'bindings'. */
function folderOf(path: string): string {
  const [top, second] = path.split('/');
  return top === 'src' ? second!.replace(/\.js$/, '.ts') : top!;
}

function isContract(path: string): boolean {
  return /^src\/\w+\/(contract|engine|transport|[a-z-]+-contract)\.js$/.test(path);
}

function forbidden(file: string, imported: Import): string | undefined {
  const source = folderOf(file);
  const target = folderOf(imported.from);
  const allowed = MAY_IMPORT[source];
  if (allowed === undefined) return `${file}: folder "${source}" is not in the table of this test`;
  if (source === target || allowed.includes(target)) return undefined;
  const acrossSides = ROLES.includes(source) && (STORAGE_SIDE.includes(target) || ROLES.includes(target));
  if (!acrossSides && (imported.typeOnly || isContract(imported.from))) return undefined;
  return `${file}: ${source} may not import ${target} (${imported.line})`;
}

describe('dependency direction', () => {
  test('src/** and bindings/** import downwards only', () => {
    const files = sourceFiles(['src', 'bindings'], /\.(ts|mjs)$/);
    expect(files.length).toBeGreaterThan(10);
    const wrong = files.flatMap((file) =>
      importsOf(file, readFileSync(join(packageRoot(), file), 'utf8'))
        .map((imported) => forbidden(file, imported))
        .filter((message) => message !== undefined),
    );
    expect(wrong).toEqual([]);
  });

  test('native/** includes downwards only, and no header of Node or of the bindings', () => {
    const files = sourceFiles(['native'], /\.(cc|h)$/);
    expect(files.length).toBeGreaterThan(2);
    const wrong = files.flatMap((file) => {
      const folder = file.split('/')[1]!;
      const allowed = MAY_INCLUDE[folder];
      if (allowed === undefined) return [`${file}: folder "${folder}" is not in the table of this test`];
      const text = readFileSync(join(packageRoot(), file), 'utf8');
      return [...text.matchAll(/^\s*#\s*include\s*[<"]([^>"]+)[>"]/gm)]
        .map((match) => match[1]!)
        .filter((header) => {
          if (/^(node|node_api|napi|js_native_api|uv|v8)(-inl)?\.h$|^bindings\//.test(header)) return true;
          if (!header.startsWith('native/')) return false;
          const target = header.split('/')[1]!;
          return target !== folder && !allowed.includes(target);
        })
        .map((header) => `${file}: native/${folder} may not include ${header}`);
    });
    expect(wrong).toEqual([]);
  });

  test('the parser sees every form of import', () => {
    const text = [
      "import { a } from '../kv/engine.js';",
      "import type { B } from './b.js';",
      "export * from './c.js';",
      "import '../telemetry/clock.js';",
      "const d = await import('./d.js');",
      'import {\n  e,\n  f,\n} from "./e.js";',
      "import fs from 'node:fs';",
    ].join('\n');
    const seen = importsOf('src/access/x.ts', text).map(
      ({ from, typeOnly }) => `${from}${typeOnly ? ' type' : ''}`,
    );
    expect(seen).toEqual([
      'src/kv/engine.js',
      'src/access/b.js type',
      'src/access/c.js',
      'src/telemetry/clock.js',
      'src/access/d.js',
      'src/access/e.js',
    ]);
  });

  test('an upward import is refused', () => {
    const upward: Import = { from: 'src/storage/node.js', line: '', typeOnly: false };
    expect(forbidden('src/gateway/mount.ts', upward)).toMatch(/gateway may not import storage/);
    expect(forbidden('src/gateway/mount.ts', { ...upward, typeOnly: true })).toBeUndefined();
    expect(forbidden('src/network/switch.ts', { ...upward, typeOnly: true })).toMatch(
      /network may not import/,
    );
  });
});
