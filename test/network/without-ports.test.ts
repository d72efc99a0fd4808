// While ports are attached anew the rest of the configuration is in force, and lets nothing pass that was kept from passing.
import { describe, expect, test } from 'vitest';
import { parseSwitchConfig, type SwitchConfigInput } from '../../src/network/config.js';
import { withoutPorts } from '../../src/network/without-ports.js';

const DOCUMENT: SwitchConfigInput = {
  networks: {
    blue: {},
    red: { tunnel: 'vxlan', vni: 7, underlay: 'wire', local: '10.0.0.1', peers: ['10.0.0.2'] },
  },
  ports: {
    a: { tap: 'tap-a', network: 'blue' },
    b: { tap: 'tap-b', network: 'blue' },
    ids: { tap: 'tap-ids' },
    judge: { script: true },
    wire: { underlay: 'auto', address: '10.0.0.1' },
  },
  rules: [
    { name: 'both', match: { port: ['a', 'b'] }, action: 'drop' },
    { name: 'alone', match: { port: 'a' }, action: 'drop' },
    { name: 'seen', match: { protocol: 'tcp' }, action: 'drop', mirror: 'ids' },
    { name: 'asked', action: { punt: 'judge' } },
    { name: 'sent', match: { network: 'red' }, encapsulate: '10.0.0.2' },
  ],
};

function rulesWithout(...gone: string[]) {
  const { rules } = withoutPorts(parseSwitchConfig(DOCUMENT), new Set(gone));
  return new Map(rules.map((rule) => [rule.name, rule]));
}

describe('a configuration without some of its ports', () => {
  test('rules hold for the ports that stay', () => {
    const rules = rulesWithout('a');
    expect(rules.get('both')).toMatchObject({ match: { port: ['b'] }, action: 'drop' });
    expect(rules.has('alone')).toBe(false);
    expect(rules.get('asked')).toMatchObject({ action: { punt: 'judge' } });
    expect(rules.get('sent')).toMatchObject({ action: 'allow', encapsulate: { version: 4 } });
  });

  test('a rule outlives its mirror', () => {
    const seen = rulesWithout('ids').get('seen')!;
    expect(seen.action).toBe('drop');
    expect(seen.mirror).toBeUndefined();
  });

  test('what had a way that is gone is dropped', () => {
    expect(rulesWithout('judge').get('asked')!.action).toBe('drop');
    const sent = rulesWithout('wire').get('sent')!;
    expect(sent.action).toBe('drop');
    expect(sent.encapsulate).toBeUndefined();
  });
});
