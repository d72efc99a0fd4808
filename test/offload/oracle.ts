// Builds the segmentation oracle (segment_oracle_*.cc with the product's native/packet and native/offload) and runs it.
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../bindings/load.js';
import { command } from '../support/command.js';
import { sourceFiles } from '../support/source-files.js';

export interface Comparison {
  readonly seeds: number;
  readonly packets: number;
  /** How often each combination of tunnel, outer and inner IP version and transport came up. */
  readonly kinds: Readonly<Record<string, number>>;
}

/** Path of the program, compiled once per change of its sources. */
export async function oracleProgram(): Promise<string> {
  const root = packageRoot();
  const files = sourceFiles(
    ['native/packet', 'native/offload', 'native/base', 'test/offload', 'test/native/support'],
    /\.(cc|h)$/,
  ).filter((file) => !file.startsWith('native/base/') || /\/(checksum\.(cc|h)|result\.h)$/.test(file));
  const hash = createHash('sha256');
  for (const file of files) hash.update(file).update(readFileSync(join(root, file)));
  const target = join(root, 'build/acceptance', `segment-oracle-${hash.digest('hex').slice(0, 16)}`);
  if (existsSync(target)) return target;
  mkdirSync(join(root, 'build/acceptance'), { recursive: true });
  const draft = `${target}.${process.pid}`;
  const flags = [
    '-std=c++20',
    '-O1',
    '-Wall',
    '-Wextra',
    '-Werror',
    '-Wno-missing-field-initializers',
    '-I.',
  ];
  const sources = files.filter((file) => file.endsWith('.cc'));
  await command('g++', [...flags, ...sources, '-o', draft], { cwd: root, timeoutMs: 300_000 });
  renameSync(draft, target);
  return target;
}

/** Seeds [first, first + count) through our engine and through the kernel. Throws with the seed and the first difference. */
export async function compareWithKernel(first: number, count: number): Promise<Comparison> {
  const program = await oracleProgram();
  return JSON.parse(await command(program, ['kernel', `${first}`, `${count}`], { timeoutMs: 600_000 }));
}

/** Why the kernel can't be asked here; undefined when it can. */
export function kernelUnavailable(): string | undefined {
  if (process.getuid?.() !== 0) return 'network namespaces and taps need root';
  if (!existsSync('/dev/net/tun')) return 'there is no /dev/net/tun';
  return undefined;
}
