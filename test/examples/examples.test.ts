// Every script of examples/ runs, as its reader would run it, and says what it is meant to say.
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, test } from 'vitest';
import { packageRoot } from '../../bindings/load.js';

const EXPECTED: Record<string, string> = {
  'capture-to-file.ts':
    'left in 142 bytes\nright out 142 bytes\nright in 142 bytes\n' +
    'right drop 142 bytes, dropped: rule by no-ping-back\nthe ping: no answer\n' +
    '4 packets, 0 lost, a file to open\n',
  'lease-a-producer.ts':
    '2 producers are registered\nleased a gateway, held: true\nleased the other one next: true\n' +
    'candidates: 1, said in 2 lines\n2 registrations\n',
  'lease-exclusive.ts':
    'alice holds /dev/sdb\nbob: CAPACITY_EXHAUSTED\nbob holds /dev/sdb\nalice, too late: FENCED\n1 registration\n',
  'leased-gateway.ts':
    '2 gateways are offered\nunknown stations by it: true\nby the other one now: true\n1 candidate was left\n',
  'mount-and-use.ts':
    "[ 'notes', 'notes/today.txt' ]\nwater the plants\npublished 1 file, 0 bytes are dirty\n",
  'move-a-port.ts':
    'before: 2 packets transmitted, 2 received\ntook over 1 address, connections: true\n' +
    'the old host: forward-to-peer\nafter: 2 packets transmitted, 2 received\n',
  'overlay-two-namespaces.ts':
    '3 packets transmitted, 3 received\nhost 1 knows stations by: guest, peer 192.0.2.2\n' +
    'host 2 took more than 3 packets out of the tunnel: true\n',
  'packet-filter.ts': 'a small ping: answered\na large one: no answer\nthe filter saw 3 packets\n',
};

const examples = readdirSync(join(packageRoot(), 'examples')).filter((name) => name.endsWith('.ts'));

function node(...argv: string[]) {
  return spawnSync(process.execPath, argv, { cwd: packageRoot(), encoding: 'utf8', timeout: 120_000 });
}

beforeAll(() => {
  const setup = node('src/setup/setup.mjs');
  expect(setup.status, setup.stderr).toBe(0);
}, 600_000);

/** What an example needs of the machine beside Node. */
const NEEDS_ROOT = new Set([
  'capture-to-file.ts',
  'leased-gateway.ts',
  'move-a-port.ts',
  'overlay-two-namespaces.ts',
  'packet-filter.ts',
]);
const isRoot = process.getuid?.() === 0;

test.each(examples.filter((name) => isRoot || !NEEDS_ROOT.has(name)))('%s', { timeout: 120_000 }, (name) => {
  const outcome = node(join('dist/examples', name.replace(/\.ts$/, '.js')));
  expect(outcome.stderr).toBe('');
  expect(outcome.stdout).toBe(EXPECTED[name]);
  expect(outcome.status).toBe(0);
});
