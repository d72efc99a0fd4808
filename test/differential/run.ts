// npm run differential -- --minutes N [--root DIR] [--reference DIR] [--suite data|namespace] [--seed N]: the random
// comparisons for as long as you like, on a mount of its own or on any directory.
import { rmSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { MountUnderTest } from '../support/mount-under-test.js';
import { compare, type Subject } from './compare.js';
import { dataSuite } from './data-suite.js';
import { nameSuite } from './name-suite.js';
import { makeReference, subjectOf } from './subject.js';

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '10' },
    root: { type: 'string' },
    reference: { type: 'string' },
    suite: { type: 'string' },
    seed: { type: 'string' },
    'cache-size': { type: 'string', default: '64M' },
    calm: { type: 'boolean', default: false },
  },
});
const suites = [dataSuite, nameSuite].filter(({ name }) => !values.suite || values.suite === name);
const mount = values.root ? undefined : await MountUnderTest.start({ cacheSize: values['cache-size'] });
// After the mount, so that nothing is left when there can be none.
const reference = values.reference ?? makeReference();
const whole: Subject = mount
  ? subjectOf(mount)
  : { root: values.root ?? '', betweens: [], interrupt: async () => {} };
const subject: Subject = values.calm ? { ...whole, betweens: [] } : whole;
const seconds = (Number(values.minutes) * 60) / suites.length;
try {
  for (const suite of suites) {
    const seed = values.seed === undefined ? {} : { seed: Number(values.seed) };
    const outcome = await compare({ suite, reference, subject, seconds, ...seed });
    const excluded = outcome.excluded.length > 0 ? `, not compared: ${outcome.excluded.join(', ')}` : '';
    process.stdout.write(
      `${suite.name}: ${outcome.programs} programs, ${outcome.operations} operations, no difference ` +
        `(seed ${outcome.seed}${excluded})\n`,
    );
  }
} catch (error) {
  process.stderr.write(`${(error as Error).message}\n`);
  if (mount) process.stderr.write(`the daemon's log:\n${mount.log}\n`);
  process.exitCode = 1;
} finally {
  await mount?.[Symbol.asyncDispose]();
  if (!values.reference) rmSync(reference, { recursive: true, force: true });
}
