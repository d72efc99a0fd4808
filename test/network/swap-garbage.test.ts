// What a configuration leaves behind for the garbage collector is what a switch grows by between two collections: of a thousand
// rules of which a hundred are new, 20 MiB once, most of it numbers of the words that matches are made of.
import { Session } from 'node:inspector/promises';
import { expect, test } from 'vitest';
import { compile } from '../../src/network/compile.js';
import { SwitchConfigReader } from '../../src/network/config.js';
import { Identifiers, Numbering } from '../../src/network/numbering.js';
import { documents } from '../swaps/swaps.js';

const SWAPS = 20;

/** Of JavaScript objects, whatever became of them; by samples, right within a few percent. */
async function allocatedBytes(work: () => void): Promise<number> {
  const session = new Session();
  session.connect();
  try {
    await session.post('HeapProfiler.startSampling', {
      samplingInterval: 4096,
      includeObjectsCollectedByMajorGC: true,
      includeObjectsCollectedByMinorGC: true,
    });
    work();
    const { profile } = await session.post('HeapProfiler.stopSampling');
    const sum = (node: typeof profile.head): number =>
      node.children.reduce((bytes, child) => bytes + sum(child), node.selfSize);
    return sum(profile.head);
  } finally {
    session.disconnect();
  }
}

test('a swap of a tenth of a thousand rules leaves less than 6 MiB to collect', async () => {
  const [networks, rules, meters] = [new Numbering(16), new Identifiers(), new Identifiers()];
  const numbers = {
    port: () => 0,
    network: (name: string) => networks.of(name),
    rule: (name: string) => rules.of(name),
    meter: (name: string) => meters.of(name),
  };
  const document = documents('/run/netns/none');
  const reader = new SwitchConfigReader();
  let swap = 0;
  const apply = () => {
    for (let i = 0; i < SWAPS; i += 1) compile(reader.read(document(swap++)), numbers);
  };
  apply();
  expect((await allocatedBytes(apply)) / SWAPS / 2 ** 20).toBeLessThan(6);
});
