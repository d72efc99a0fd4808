// A packet filter in ten lines of JavaScript: a rule punts what it matches to a script port, the script reads each packet where
// it lies and says whether it goes on. Two namespaces with a tap each play the hosts. Needs root.
import { execFile, execFileSync } from 'node:child_process';
import { promisify } from 'node:util';
import { Switch, Verdict } from 'penstock';

const spaces = ['left', 'right'].map((name) => `${name}-${process.pid}`);
const [left, right] = spaces as [string, string];
const ip = (...words: string[]) => execFileSync('ip', words);
// Not synchronously: the thread that would wait is the one that has to answer.
const ping = (bytes: number) =>
  promisify(execFile)('ip', [
    'netns',
    'exec',
    left,
    'ping',
    '-c',
    '1',
    '-W',
    '3',
    '-s',
    `${bytes}`,
    '10.0.0.2',
  ]).then(
    () => 'answered',
    () => 'no answer',
  );

try {
  for (const space of spaces) ip('netns', 'add', space);
  await using plane = await Switch.start();
  const tap = (space: string) => ({ tap: 'eth0', namespace: `/run/netns/${space}`, network: 'blue' });

  await plane.apply({
    networks: { blue: {} },
    ports: { left: tap(left), right: tap(right), filter: { script: true } },
    rules: [{ match: { protocol: 'icmp' }, action: { punt: 'filter' } }],
  });
  let seen = 0;
  plane.onPacket('filter', (packet) => {
    seen += 1;
    return packet.length > 500 ? Verdict.drop : Verdict.accept;
  });

  ip('-n', left, 'addr', 'add', '10.0.0.1/24', 'dev', 'eth0');
  ip('-n', right, 'addr', 'add', '10.0.0.2/24', 'dev', 'eth0');
  console.log(`a small ping: ${await ping(100)}`);
  console.log(`a large one: ${await ping(1000)}`);
  console.log(`the filter saw ${seen} packets`);
} finally {
  for (const space of spaces) ip('netns', 'delete', space);
}
