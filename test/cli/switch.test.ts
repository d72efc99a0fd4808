// `penstock switch` against a daemon that has one, with taps in namespaces of the test.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { CliWorld } from '../support/cli-context.js';
import { NetworkLab, networkUnavailable } from '../support/network-lab.js';

const unavailable = networkUnavailable();

test.skipIf(unavailable !== undefined)(
  'apply, show, trace and stats of a running switch',
  { timeout: 180_000 },
  async () => {
    await using lab = new NetworkLab('a', 'b');
    const document = (rules: object[]) => ({
      networks: { blue: { tracking: true } },
      ports: {
        a: { tap: 'eth0', namespace: lab.path('a'), network: 'blue' },
        b: { tap: 'eth0', namespace: lab.path('b'), network: 'blue' },
      },
      rules,
    });
    const world = new CliWorld();
    const write = (name: string, value: object): string => {
      writeFileSync(join(world.directory, name), JSON.stringify(value));
      return name;
    };
    const ask = (...argv: string[]) => world.run('switch', ...argv);
    const up = ['up', write('penstock.yaml', { switch: { workers: 1, ...document([]) } }), '--json'];
    const { ended } = await world.serve(...up);
    try {
      expect(JSON.parse(world.output)).toMatchObject({ ports: ['a', 'b'], volumes: [] });

      const flow = ['trace', 'a', 'tcp 10.0.0.1:1000 > 10.0.0.2:23'];
      expect((await ask(...flow)).out).toContain('output       port 1 (b), 54 bytes');

      const rule = { name: 'no-telnet', match: { protocol: 'tcp', destinationPorts: 23 }, action: 'drop' };
      expect(await ask('apply', write('new.yaml', document([rule])))).toMatchObject({ code: 0 });
      expect((await ask(...flow)).out).toContain('rule         no-telnet: drop');
      expect(JSON.parse((await ask(...flow, '--json')).out)).toMatchObject({ dropped: 'rule', outputs: [] });

      const bad = await ask('apply', write('bad.yaml', document([{ meter: 'none' }])));
      expect(bad.code).toBe(2);
      expect(bad.err).toBe('penstock: rules[0].meter: no meter "none" (there are none)\n');
      expect((await ask('trace', 'z', 'udp 10.0.0.1 > 10.0.0.2')).err).toBe(
        'penstock: no port "z" (there are a, b)\n',
      );
      expect((await ask('trace', 'a', 'smoke signals')).code).toBe(2);

      expect(await ask('port', 'a', '--state', 'blocked')).toMatchObject({ code: 0, out: 'a is blocked\n' });
      expect(JSON.parse((await ask(...flow, '--json')).out)).toMatchObject({ dropped: 'port-blocked' });
      expect(JSON.parse((await ask('show', '--json')).out).ports.a.state).toBe('blocked');
      expect(JSON.parse((await ask('port', 'a', '--state', 'up', '--json')).out)).toEqual({
        port: 'a',
        state: 'up',
      });
      expect(JSON.parse((await ask(...flow, '--json')).out)).toMatchObject({ dropped: 'rule' });
      expect((await ask('port', 'a', '--state', 'sideways')).code).toBe(2);
      expect((await ask('port', 'z', '--state', 'up')).err).toBe('penstock: no port "z" (there are a, b)\n');

      const exported = await ask('port', 'a', '--export', 'a.port', '--json');
      const image = readFileSync(join(world.directory, 'a.port'));
      expect(JSON.parse(exported.out)).toEqual({ port: 'a', file: 'a.port', bytes: image.length });
      // The kernel behind a tap speaks by itself: an address may have been learned.
      expect((await ask('port', 'b', '--import', 'a.port')).out).toMatch(
        /^b took over 0 connections and [01] addresses\n$/,
      );
      writeFileSync(join(world.directory, 'cut.port'), image.subarray(1));
      expect(await ask('port', 'b', '--import', 'cut.port')).toMatchObject({
        code: 1,
        err: 'penstock: import port b: the state of a port: these bytes are something else, or cut short\n',
      });
      const forward = ['port', 'a', '--state', 'forward-to-peer'];
      expect(await ask(...forward)).toMatchObject({
        code: 2,
        err: expect.stringContaining('--peer goes with'),
      });
      expect((await ask(...forward, '--peer', '10.0.0.9')).err).toContain(
        'network "blue" has no vxlan or geneve tunnel to forward through',
      );
      expect((await ask('port', 'a', '--state', 'up', '--import', 'a.port')).code).toBe(2);
      expect((await ask('port', 'a', '--import', 'none.port')).err).toContain('cannot read none.port');

      const shown = JSON.parse((await ask('show', '--json')).out);
      expect(Object.keys(shown.ports)).toEqual(['a', 'b']);
      expect(shown.config.rules[0].name).toBe('no-telnet');
      expect((await ask('show')).out).toMatch(/^PORT\s+INTERFACE\s+STATE/);
      expect(JSON.parse((await ask('stats', '--json')).out).rules).toEqual([
        { name: 'no-telnet', packets: 0, bytes: 0 },
      ]);
    } finally {
      world.signal();
      await ended;
      world.remove();
    }
    expect(lab.ip('a', '-o link')).not.toContain('eth0');
  },
);

test('without a daemon it says how to get one', async () => {
  const world = new CliWorld();
  const { code, err } = await world.run('switch', 'show');
  world.remove();
  expect(code).toBe(1);
  expect(err).toBe(
    'penstock: no daemon runs a switch; start one with "penstock up" and a "switch" section\n',
  );
});
