// npm run cache-reopen: what opening a cache of many small files costs after a kill, with the indexes of its segments and
// without: milliseconds, and bytes of memory a file.
//   --files 1000000 --bytes 100 --rounds 3
//
// The measured code is native (cache-reopen.cc), compiled as the addon is.
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { sourceFiles } from '../test/support/source-files.js';
import { output } from './output.js';

const { values: options } = parseArgs({
  options: {
    files: { type: 'string', default: '1000000' },
    bytes: { type: 'string', default: '100' },
    rounds: { type: 'string', default: '3' },
  },
});

const directory = mkdtempSync(join(tmpdir(), 'penstock-bench-'));
try {
  const program = join(directory, 'cache-reopen');
  const sources = sourceFiles(['native/cache', 'native/base'], /\.cc$/);
  const flags = ['-std=c++20', '-O2', '-I.', '-pthread'];
  output(process.env.CXX ?? 'c++', [...flags, 'bench/cache-reopen.cc', ...sources, '-o', program]);
  const cache = join(directory, 'cache');
  output(program, ['fill', cache, options.files, options.bytes]);
  // Whatever the background thread has indexed by now, all of it is indexed after this one.
  output(program, ['open', cache, options.files, 'maintain']);
  const medianOf = (found: number[]) => found.sort((a, b) => a - b)[Math.floor(found.length / 2)] ?? 0;
  const measure = (label: string) => {
    const milliseconds: number[] = [];
    let bytes = 0;
    let records = 0;
    for (let round = 0; round < Number(options.rounds); round++) {
      const line = output(program, ['open', cache, options.files]).trim().split(' ').map(Number);
      milliseconds.push(line[0] ?? 0);
      bytes = line[1] ?? 0;
      records = line[2] ?? 0;
    }
    const median = medianOf(milliseconds);
    process.stdout.write(
      `${label.padEnd(16)} ${median.toFixed(0)} ms, ${records} records replayed, ${bytes.toFixed(0)} bytes of memory a file\n`,
    );
    return median;
  };
  const indexed = measure('with indexes');
  for (const name of readdirSync(join(cache, 'log'))) {
    if (name.endsWith('.index')) rmSync(join(cache, 'log', name));
  }
  const replayed = measure('without indexes');
  process.stdout.write(`indexes: ${(replayed / indexed).toFixed(1)} times as fast\n`);
} finally {
  rmSync(directory, { recursive: true, force: true });
}
