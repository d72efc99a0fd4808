// A configuration without some of its ports, as it is in force while these are let go and attached anew: everything else is
// treated as before, and nothing passes that would not have passed.
import type { SwitchConfig } from './config.js';

type RuleConfig = SwitchConfig['rules'][number];

/** Mirrors that name the ports go with them, networks lose their tunnel with its underlay, rules what they name of it. */
export function withoutPorts(config: SwitchConfig, gone: ReadonlySet<string>): SwitchConfig {
  const stays = (name: string | undefined): boolean => name === undefined || !gone.has(name);
  const networks = Object.entries(config.networks).map(([name, network]) =>
    stays(network.underlay)
      ? ([name, network] as const)
      : ([
          name,
          {
            ...network,
            ...{ tunnel: undefined, vni: undefined, underlay: undefined, local: undefined, peers: [] },
            ...{ gateway: undefined, offer: undefined },
          },
        ] as const),
  );
  const hasPeers = ({ match }: RuleConfig): boolean =>
    match.network !== undefined && stays(config.networks[match.network]?.underlay);
  return {
    ...config,
    networks: Object.fromEntries(networks) as SwitchConfig['networks'],
    ports: Object.fromEntries(Object.entries(config.ports).filter(([name]) => !gone.has(name))),
    rules: config.rules
      .map((rule, i) => ({ ...rule, name: rule.name ?? `rules[${i}]` }))
      // Without a port nothing comes in by it.
      .filter(({ match }) => match.port?.some(stays) ?? true)
      .map((rule) => rest(rule, stays, hasPeers(rule))),
    mirrors: config.mirrors.filter(({ from, to }) => stays(from) && stays(to)),
  };
}

/** What had a way that is gone is dropped: by address it might go where the rule kept it from. */
function rest(rule: RuleConfig, stays: (name: string | undefined) => boolean, hasPeers: boolean): RuleConfig {
  const { action, encapsulate, match, mirror } = rule;
  const target = typeof action === 'string' ? undefined : 'output' in action ? action.output : action.punt;
  const tunnelled = encapsulate === undefined || hasPeers;
  return {
    ...rule,
    match: { ...match, port: match.port?.filter(stays) },
    action: stays(target) && tunnelled ? action : 'drop',
    mirror: stays(mirror) ? mirror : undefined,
    encapsulate: tunnelled ? encapsulate : undefined,
  };
}
