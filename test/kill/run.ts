// npm run kill -- --count 500 [--seed N] [--cache-size 64M]: kills the daemon of one volume again and again.
import { parseArgs } from 'node:util';
import { MountUnderTest } from '../support/mount-under-test.js';
import { Lives } from './life.js';

const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '500' },
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    'cache-size': { type: 'string', default: '64M' },
  },
});
const count = Number(values.count);
process.stdout.write(`seed ${values.seed}\n`);
await using mount = await MountUnderTest.start({ cacheSize: values['cache-size'] });
const lives = new Lives(mount, Number(values.seed));
for (let kill = 1; kill <= count; kill += 1) {
  const { pressure, acknowledged, recoveryMs } = await lives.live();
  const megabytes = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
  process.stdout.write(
    `${kill}/${count}: ${acknowledged} acknowledged, ${megabytes(pressure.dirtyBytes)} dirty, ` +
      `${megabytes(pressure.inFlightBytes)} in flight, mounted again in ${recoveryMs.toFixed(0)} ms\n`,
  );
}
await mount.evict();
await lives.verify();
process.stdout.write(`${count} kills, nothing acknowledged was lost\n`);
