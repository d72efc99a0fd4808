// npm run power-loss -- --count 300 [--seed N] [--cache-size 64M] [--lives 12]: cuts the power again and again; every
// `lives` outages the volume is verified from the extent store alone and a fresh one is made. PENSTOCK_TEST_KEEP=1 leaves
// the disk of a failure for a closer look.
import { parseArgs } from 'node:util';
import { Outages } from './outage.js';

const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '300' },
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    'cache-size': { type: 'string', default: '64M' },
    lives: { type: 'string', default: '12' },
  },
});
const count = Number(values.count);
const lives = Number(values.lives);
const megabytes = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
for (let done = 0; done < count; ) {
  const seed = Number(values.seed) + done;
  process.stdout.write(`seed ${seed}\n`);
  await using outages = await Outages.start(seed, values['cache-size']);
  for (let life = 0; life < lives && done < count; life += 1) {
    const { pressure, cut, acknowledged, recoveryMs } = await outages.outage();
    done += 1;
    process.stdout.write(
      `${done}/${count}: ${acknowledged} acknowledged, ${megabytes(pressure.dirtyBytes)} dirty, ` +
        `${megabytes(pressure.inFlightBytes)} in flight, lost ${cut.lostPages} of ${cut.unsyncedPages} pages and ` +
        `${cut.lostNames} of ${cut.unsyncedNames} names, mounted again in ${recoveryMs.toFixed(0)} ms\n`,
    );
  }
  await outages.close();
}
process.stdout.write(`${count} cuts, nothing synced was lost\n`);
