// A script that ends without having stopped its switch, while packets flow to it: in good order all the same.
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { packageRoot } from '../../bindings/load.js';
import { NetworkLab, networkUnavailable } from '../support/network-lab.js';

const unavailable = networkUnavailable(['ping']);
const RUNS = 8;
const SCRIPT = `
const { Switch } = await import(process.argv[1]);
const [, , namespace, runtimeDirectory] = process.argv;
const plane = await Switch.start({ runtimeDirectory });
let seen = 0;
plane.onPacket('script', () => void ++seen);
await plane.apply({
  offload: 'off',
  networks: { blue: {} },
  ports: {
    a: { interface: 'va', namespace, network: 'blue' },
    b: { interface: 'vb', namespace, network: 'blue' },
    script: { script: true },
  },
  rules: [{ action: { punt: 'script' } }],
});
const capture = plane.capture();
(async () => { for await (const _ of capture.batches()); })();
while (seen < 1000) await new Promise((resolve) => setTimeout(resolve, 20));
console.log('seen');
`;

describe.skipIf(unavailable !== undefined)('a script that ends', () => {
  test('while its ring and its capture are written to', { timeout: 180_000 }, async () => {
    await using lab = new NetworkLab('plane', 'a', 'b');
    ['a', 'b'].forEach((host, i) => {
      lab.ip('plane', `link add v${host} type veth peer name eth0 netns ${lab.space(host)}`);
      lab.ip('plane', `link set v${host} up`);
      lab.ip(host, 'link set eth0 up');
      lab.ip(host, `addr add 10.88.0.${i + 1}/24 dev eth0`);
    });
    lab.start('a', 'ping', '-q', '-f', '-l', '64', '10.88.0.2');
    const module = join(packageRoot(), 'dist/src/network/switch.js');
    const argv = ['--input-type=module', '-e', SCRIPT, module, lab.path('plane'), join(lab.directory, 'run')];
    for (let i = 0; i < RUNS; i += 1)
      expect(await lab.run('plane', process.execPath, ...argv)).toBe('seen\n');
  });
});
