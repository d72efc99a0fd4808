// `npm run fuzz -- --minutes 10`: every fuzz target for that many minutes of processor time each.
import { spawnSync } from 'node:child_process';
import { parseArgs } from 'node:util';

const { values } = parseArgs({ options: { minutes: { type: 'string', default: '10' } } });
const minutes = Number(values.minutes);
if (!(minutes > 0)) {
  process.stderr.write(
    `--minutes wants a positive number, not "${values.minutes}"; example: npm run fuzz -- --minutes 10\n`,
  );
  process.exit(2);
}
const { status } = spawnSync('npx', ['vitest', 'run', 'test/native/fuzz.test.ts'], {
  stdio: 'inherit',
  env: { ...process.env, PENSTOCK_FUZZ_SECONDS: String(Math.round(minutes * 60)) },
});
process.exit(status ?? 1);
