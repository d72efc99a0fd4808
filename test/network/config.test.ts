// A configuration that is wrong says which key is, before anything is touched; one that is right becomes the tables it means.
import { describe, expect, test } from 'vitest';
import { formatIp, parseIp } from '../../src/network/addresses.js';
import { compile, type NetworkGateways } from '../../src/network/compile.js';
import { parseSwitchConfig, type SwitchConfigInput, SwitchConfigReader } from '../../src/network/config.js';
import { NetworkError } from '../../src/network/errors.js';
import { Identifiers, Numbering } from '../../src/network/numbering.js';
import { GROUP_RECORD_BYTES, RULE_RECORD_BYTES } from '../../src/network/records.js';

const BASE: SwitchConfigInput = {
  networks: { blue: {} },
  ports: { a: { tap: 'tap-a', network: 'blue' }, b: { interface: 'veth-b', vlans: { 10: 'blue' } } },
};

function compiled(document: SwitchConfigInput, gateways?: NetworkGateways) {
  const config = parseSwitchConfig(document);
  const names = Object.keys(config.ports);
  const networks = new Numbering(16);
  const rules = new Identifiers();
  const meters = new Identifiers();
  return compile(
    config,
    {
      port: (name) => names.indexOf(name),
      network: (name) => networks.of(name),
      rule: (name) => rules.of(name),
      meter: (name) => meters.of(name),
    },
    gateways,
  );
}

/** One tunnel over one underlay. */
function overlay(words: object) {
  const blue = { tunnel: 'vxlan', vni: 7, underlay: 'wire', local: '10.0.0.1', ...words };
  return { networks: { blue }, ports: { wire: { underlay: 'udp', address: '10.0.0.1' } } };
}

function mistake(document: unknown): string {
  try {
    compiled(document as SwitchConfigInput);
  } catch (error) {
    expect(error).toBeInstanceOf(NetworkError);
    expect((error as NetworkError).code).toBe('CONFIG');
    return (error as Error).message;
  }
  throw new Error('it was accepted');
}

describe('mistakes name the key', () => {
  const cases: ReadonlyArray<readonly [unknown, string]> = [
    [
      { networks: { blue: { gateway: { service: 's' } } } },
      'networks.blue.gateway: has no meaning without "tunnel"',
    ],
    [
      overlay({ gateway: { service: 's' }, offer: { service: 's' } }),
      'networks.blue.offer: stands beside "gateway"; a network leases a gateway or is one',
    ],
    [
      overlay({ gateway: { service: 's' }, learnPeers: true }),
      'networks.blue.learnPeers: would go on flooding to gateways of before; expected false beside "gateway"',
    ],
    [
      overlay({ gateway: { service: 's', agent: 'somewhere' } }),
      'networks.blue.gateway.agent: expected unix:/PATH or HOST:PORT, got "somewhere"',
    ],
    [{ prts: {} }, 'unknown key "prts" (allowed: offload, networks, ports, groups, rules, meters, mirrors)'],
    [{ ports: { a: { tap: 'a', mtoo: 1 } } }, 'ports.a: unknown key "mtoo"'],
    [{ ports: { a: { tap: 'a-name-of-sixteen-' } } }, 'ports.a.tap: expected an interface name'],
    [{ ports: { a: { tap: 'x', interface: 'y' } } }, 'ports.a: expected exactly one of tap, interface'],
    [{ ports: { a: {} } }, 'ports.a: expected exactly one of tap, interface, underlay, script; got none'],
    [{ ports: { a: { tap: 'x', network: 'red' } } }, 'ports.a.network: no network "red" (there are none)'],
    [{ ports: { a: { tap: 'x', mac: '2:0' } } }, 'ports.a.mac: expected a MAC address'],
    [{ ...BASE, ports: { a: { tap: 'x', vlans: { 5000: 'blue' } } } }, 'ports.a.vlans.5000: expected a VLAN'],
    [{ ports: { a: { tap: 'x', antiSpoof: true } } }, 'ports.a.antiSpoof: needs "mac"'],
    [{ ports: { u: { underlay: 'auto' } } }, 'ports.u.address: missing'],
    [
      { ports: { u: { underlay: 'auto', address: '10.0.0.1', state: 'blocked' } } },
      'ports.u.state: an underlay has no state of its own',
    ],
    [{ ports: { a: { tap: 'x', state: 'down' } } }, 'ports.a.state'],
    [{ networks: { blue: { vni: 7 } } }, 'networks.blue.vni: has no meaning without "tunnel"'],
    [{ networks: { blue: { tunnel: 'vxlan' } } }, 'networks.blue.vni: missing: a tunnel needs it'],
    [
      { ...BASE, rules: [{}, { action: { output: 'c' } }] },
      'rules[1].action.output: no port "c" (there are a, b)',
    ],
    [{ ...BASE, rules: [{ action: { punt: 'a' } }] }, 'rules[0].action.punt: port "a" is no script port'],
    [{ ...BASE, rules: [{ meter: 'slow' }] }, 'rules[0].meter: no meter "slow"'],
    [{ ...BASE, rules: [{ match: { source: '10.0.0.1/8' } }] }, 'rules[0].match.source'],
    [
      { ...BASE, rules: [{ match: { tcpFlags: 'syn,urgent' } }] },
      'rules[0].match.tcpFlags: unknown TCP flag "urgent"',
    ],
    [{ ...BASE, rules: [{ name: 'x' }, { name: 'x' }] }, 'rules[1].name: "x" is the name of another rule'],
    [{ ...BASE, rules: [{ encapsulate: '1.2.3.4' }] }, 'rules[0].encapsulate: needs "match.network"'],
    [{ ...BASE, groups: { web: { in: [{ ports: 80 }] } } }, 'groups.web.in[0].ports: needs "protocol"'],
    [
      { ...BASE, groups: { web: { in: [{ remoteGroup: 'db' }] } } },
      'groups.web.in[0].remoteGroup: no security group "db"',
    ],
    [{ ...BASE, mirrors: [{ to: 'z' }] }, 'mirrors[0].to: no port "z"'],
    // Names of what every object has.
    [
      { ...BASE, rules: [{ action: { output: 'constructor' } }] },
      'rules[0].action.output: no port "constructor"',
    ],
    [{ ports: { a: { tap: 'x', network: 'valueOf' } } }, 'ports.a.network: no network "valueOf"'],
    [
      { ...BASE, ports: { a: { tap: 'x', vlans: { '10': 'blue', '010': 'blue' } } } },
      'ports.a.vlans.010: expected 10, without a zero before it',
    ],
    [{ ports: { a: { tap: 'x' }, b: { tap: 'x' } } }, 'ports.b.tap: port "a" has interface x already'],
    [
      {
        ports: {
          a: { tap: 'x', namespace: '/run/netns/n' },
          b: { interface: 'x', namespace: '/run/netns/n' },
        },
      },
      'ports.b.interface: port "a" has interface x already',
    ],
    [
      {
        ports: {
          wire: { underlay: 'auto', address: 'fd00::1' },
          other: { underlay: 'udp', address: 'FD00:0::1' },
        },
      },
      'ports.other.address: port "wire" has this tunnel address already',
    ],
    [
      {
        ports: { wire: { underlay: 'auto', address: '10.0.0.1' } },
        networks: {
          red: { tunnel: 'vxlan', vni: 7, underlay: 'wire', local: '10.0.0.1' },
          green: { tunnel: 'vxlan', vni: 7, underlay: 'wire', local: '10.0.0.1' },
        },
      },
      'networks.green.vni: network "red" has this VNI already',
    ],
  ];
  for (const [document, message] of cases) {
    test(message, () => {
      expect(mistake(document)).toContain(message);
    });
  }
});

test('a name may stand in two namespaces, and a VNI in two kinds of tunnel', () => {
  compiled({
    ports: {
      a: { tap: 'x' },
      b: { tap: 'x', namespace: '/run/netns/n' },
      wire: { underlay: 'auto', address: '10.0.0.1' },
    },
    networks: {
      red: { tunnel: 'vxlan', vni: 7, underlay: 'wire', local: '10.0.0.1' },
      green: { tunnel: 'geneve', vni: 7, underlay: 'wire', local: '10.0.0.1' },
    },
  });
});

describe('what a configuration means', () => {
  test('ports know their networks and tags', () => {
    const { ports } = compiled(BASE);
    expect(ports[0]!.attachments).toEqual([{ network: 0, vlan: 0xffff }]);
    expect(ports[1]!.attachments).toEqual([{ network: 0, vlan: 10 }]);
  });

  test('flows are offloaded and VXLAN over IPv4 has no outer checksum, unless told otherwise', () => {
    expect(compiled(BASE).offload).toBe(true);
    expect(compiled({ ...BASE, offload: 'off' }).offload).toBe(false);
    const summed = (more: object): boolean =>
      compiled(overlay(more) as SwitchConfigInput).networks[0]!.outerChecksum;
    expect(summed({ tunnel: 'vxlan' })).toBe(false);
    expect(summed({ tunnel: 'vxlan', outerChecksum: true })).toBe(true);
    expect(summed({ tunnel: 'geneve' })).toBe(true);
    expect(summed({ tunnel: 'vxlan', local: 'fd00::1', peers: [] })).toBe(true);
    expect(summed({ tunnel: 'vxlan', local: 'fd00::1', peers: [], outerChecksum: false })).toBe(false);
  });

  test('a gateway stands behind the static peers; one that is left is no peer', () => {
    const peers = { peers: ['10.0.0.2', '10.0.0.3'], gateway: { service: 's' } };
    const of = (current: string, leaving: string[]) => {
      const gateway = { current: parseIp(current)!, leaving: leaving.map((each) => parseIp(each)!) };
      const [blue] = compiled(overlay(peers) as SwitchConfigInput, new Map([['blue', gateway]])).networks;
      return [blue!.peers.map(formatIp), blue!.leaving.map(formatIp)];
    };
    expect(of('10.0.0.9', ['10.0.0.8', '10.0.0.2'])).toEqual([
      ['10.0.0.2', '10.0.0.3', '10.0.0.9'],
      ['10.0.0.8'],
    ]);
    expect(of('10.0.0.3', [])).toEqual([['10.0.0.2', '10.0.0.3'], []]);
    expect(() => of('fd00::9', [])).toThrow('networks.blue.gateway: fd00::9 is of another IP version');
  });

  test('lists of a match stand for every combination', () => {
    const rule = { match: { protocol: ['tcp', 'udp'] as const, destinationPorts: [80, '8000-8999'] } };
    const { rules } = compiled({
      ...BASE,
      rules: [{ ...rule, match: { ...rule.match, protocol: [...rule.match.protocol] } }],
    });
    expect(rules.length).toBe(4 * RULE_RECORD_BYTES);
    const view = new DataView(rules.buffer);
    const seen = [0, 1, 2, 3].map((i) => {
      const at = i * RULE_RECORD_BYTES;
      const protocol = Number((view.getBigUint64(at + 8, true) >> 8n) & 0xffn);
      const exact = Number(view.getBigUint64(at + 8 + 24, true) & 0xffffn);
      return [protocol, exact, view.getUint16(at + 140, true), view.getUint16(at + 142, true)];
    });
    expect(seen).toEqual([
      [6, 80, 0, 65535],
      [6, 0, 8000, 8999],
      [17, 80, 0, 65535],
      [17, 0, 8000, 8999],
    ]);
  });

  test('a prefix is looked at as far as it goes', () => {
    const { rules } = compiled({ ...BASE, rules: [{ match: { source: '10.128.0.0/9' } }] });
    const view = new DataView(rules.buffer);
    expect(view.getBigUint64(72 + 40, true)).toBe(0xffff_ffff_ff80_0000n);
    expect(view.getBigUint64(8 + 40, true)).toBe(0x0000_ffff_0a80_0000n);
  });

  test('a group of ports stands for their addresses', () => {
    const { groups } = compiled({
      networks: { blue: {} },
      ports: {
        a: { tap: 'x', groups: ['db'], addresses: ['10.0.0.1', '10.0.0.2'] },
        b: { tap: 'y', groups: ['web'] },
      },
      groups: { web: {}, db: { in: [{ protocol: 'tcp', ports: 5432, remoteGroup: 'db' }] } },
    });
    // Two addresses more than the group that only has what is always allowed.
    expect(groups[1]!.rules.length - groups[0]!.rules.length).toBe(2 * GROUP_RECORD_BYTES);
  });
});

describe('one configuration after the other', () => {
  const rule = (name: string, port: number) => ({
    name,
    match: { protocol: 'tcp' as const, destination: '10.0.0.0/8', destinationPorts: [port] },
  });

  test('a rule that stays as it was is not read again, and cannot be changed', () => {
    const reader = new SwitchConfigReader();
    const first = reader.read({ ...BASE, rules: [rule('x', 1), rule('y', 2)] });
    const second = reader.read({ ...BASE, rules: [rule('new', 3), rule('y', 2), rule('x', 4)] });
    expect(second).toEqual(
      parseSwitchConfig({ ...BASE, rules: [rule('new', 3), rule('y', 2), rule('x', 4)] }),
    );
    expect(second.rules[1]).toBe(first.rules[1]);
    expect(() => {
      second.rules[1]!.match.destinationPorts!.length = 0;
    }).toThrow(TypeError);
  });

  test('a rule that was changed in place is another one', () => {
    const reader = new SwitchConfigReader();
    const document = { ...BASE, rules: [rule('x', 1)] };
    reader.read(document);
    document.rules[0]!.match.destinationPorts[0] = 2;
    expect(reader.read(document).rules[0]!.match.destinationPorts).toEqual([{ first: 2, last: 2 }]);
  });

  test('mistakes are told as ever, and the next one is read', () => {
    const reader = new SwitchConfigReader();
    const right = { ...BASE, rules: [rule('x', 1)] };
    const { rules } = reader.read(right);
    for (const wrong of [
      { ...right, rules: [...right.rules, { name: 'y', match: { source: '10.0.0.1/8' } }] },
      { ...right, rules: [...right.rules, { name: 'y', priority: 7n }] },
      { ...right, rules: [undefined] },
      { ...right, rules: {} },
      { ...right, prts: {} },
      { ...right, rules: [...right.rules, {}], networks: { blue: { vni: -1 } } },
      undefined,
    ])
      expect(() => reader.read(wrong)).toThrow(mistake(wrong));
    expect(reader.read(right).rules[0]).toBe(rules[0]);
  });
});

describe('numbers for names', () => {
  test('a number is not given to another name in the configuration that drops its own', () => {
    const numbering = new Numbering(8);
    expect(numbering.of('blue')).toBe(0);
    numbering.commit();
    expect(numbering.of('red')).toBe(1);
    numbering.commit();
    expect(numbering.of('red')).toBe(1);
    expect(numbering.of('green')).not.toBe(1);
  });

  test('a refused configuration leaves no numbers behind', () => {
    const numbering = new Numbering(2);
    numbering.of('blue');
    numbering.commit();
    numbering.of('blue');
    numbering.of('red');
    numbering.abandon();
    expect(numbering.of('green')).toBe(1);
    expect(() => numbering.of('yellow')).toThrow(RangeError);
  });
});
