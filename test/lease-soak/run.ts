// npm run lease:soak -- [--minutes 10] [--seed N]: one fault after another for so long. Ends with 1 when an exclusive producer was held by
// two, or when not everything is leased again afterwards.
import { loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import { soak } from './soak.js';

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '10' },
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
  },
});
const [minutes, seed] = [Number(values.minutes), Number(values.seed)];
if (!(minutes > 0 && Number.isInteger(seed))) {
  process.stderr.write('lease:soak: --minutes takes a number above 0, --seed a whole number\n');
  process.exit(2);
}
process.stdout.write(`seed ${seed}\n`);
const startedMs = performance.now();
const { uses, faults } = await soak({
  seconds: minutes * 60,
  seed,
  onFault: (line) =>
    process.stdout.write(`${((performance.now() - startedMs) / 1000).toFixed(1).padStart(7)} s  ${line}\n`),
});
const counts = Object.entries(faults).map(([kind, count]) => `${count} ${kind}`);
process.stdout.write(
  `${uses} uses of exclusive producers, none by two; ${counts.join(', ')}; load ${loadavg()[0]!.toFixed(1)}\n`,
);
