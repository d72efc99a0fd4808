// npm run offload-oracle -- [--seeds 10000] [--first 0]: our segmentation against the kernel's, in a namespace of its own.
import { parseArgs } from 'node:util';
import { compareWithKernel, kernelUnavailable } from './oracle.js';

const { values } = parseArgs({
  options: { seeds: { type: 'string', default: '10000' }, first: { type: 'string', default: '0' } },
});
const seeds = Number(values.seeds);
const first = Number(values.first);
const without = kernelUnavailable();
if (!(Number.isInteger(seeds) && seeds > 0 && Number.isInteger(first) && first >= 0)) {
  process.stderr.write(
    '--seeds and --first want whole numbers; example: npm run offload-oracle -- --seeds 10000\n',
  );
  process.exitCode = 2;
} else if (without !== undefined) {
  process.stderr.write(`the kernel cannot be asked: ${without}\n`);
  process.exitCode = 1;
} else {
  const { packets, kinds } = await compareWithKernel(first, seeds);
  for (const [kind, count] of Object.entries(kinds)) process.stdout.write(`${kind.padEnd(20)} ${count}\n`);
  process.stdout.write(`${seeds} superframes, ${packets} packets, no difference\n`);
}
