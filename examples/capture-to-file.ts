// Writes what a switch carries, and what it drops, to a file that Wireshark opens: every packet with its port and direction, a
// dropped one with the reason and the rule. Two namespaces with a tap each play the hosts. Needs root.
import { execFile, execFileSync } from 'node:child_process';
import { createWriteStream, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { finished } from 'node:stream/promises';
import { promisify } from 'node:util';
import { PcapngWriter, Switch } from 'penstock';

const spaces = ['left', 'right'].map((name) => `${name}-${process.pid}`);
const [left, right] = spaces as [string, string];
const path = join(tmpdir(), `penstock-${process.pid}.pcapng`);
const ip = (...words: string[]) => execFileSync('ip', words);
// Not synchronously: the thread that would wait is the one that has to read.
const ping = (bytes: number) =>
  promisify(execFile)('ip', [
    'netns',
    'exec',
    left,
    ...`ping -c 1 -W 3 -s ${bytes} 10.0.0.2`.split(' '),
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
    ports: { left: tap(left), right: tap(right) },
    rules: [{ name: 'no-ping-back', match: { port: 'right', protocol: 'icmp' }, action: 'drop' }],
  });
  ip('-n', left, 'addr', 'add', '10.0.0.1/24', 'dev', 'eth0');
  ip('-n', right, 'addr', 'add', '10.0.0.2/24', 'dev', 'eth0');

  const capture = plane.capture({ ports: ['*'], drops: true, match: { protocol: 'icmp' } });
  await capture.started();
  const file = createWriteStream(path);
  const writer = new PcapngWriter(file);
  const reading = (async () => {
    for await (const packet of capture) {
      writer.write(packet);
      const fate = packet.drop === undefined ? '' : `, dropped: ${packet.drop.name} by ${packet.rule}`;
      console.log(`${packet.port} ${packet.direction} ${packet.length} bytes${fate}`);
    }
  })();

  console.log(`the ping: ${await ping(100)}`);
  await capture.stop();
  await reading;
  const summary = await capture.stop();
  writer.end(summary);
  file.end();
  await finished(file);
  console.log(
    `${summary.packets} packets, ${summary.lost} lost, ${statSync(path).size > 500 ? 'a file' : 'an empty file'} to open`,
  );
} finally {
  rmSync(path, { force: true });
  for (const space of spaces) ip('netns', 'delete', space);
}
