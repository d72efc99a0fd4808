// What the networks of a switch have to do with lease agents: `gateway` leases one, `offer` is one. Follows the configuration in
// force; a network whose words did not change keeps its lease.
import { hostname } from 'node:os';
import { LeaseConsumer } from '../lease/consumer.js';
import type { AgentApi } from '../lease/contract.js';
import type { RemoteAgent } from '../lease/grpc/client.js';
import { formatIp } from '../network/addresses.js';
import type { NetworkConfig } from '../network/config.js';
import { Prober } from '../network/probe.js';
import type { Switch } from '../network/switch.js';
import { type Clock, systemClock } from '../telemetry/clock.js';
import { type Logger, silentLogger } from '../telemetry/logger.js';
import { type Random, systemRandom } from '../telemetry/random.js';
import { GatewayOffer, type GatewayOfferView } from './gateway-offer.js';
import { LeasedGateway, type LeasedGatewayView } from './leased-gateway.js';

export interface LeasedGatewaysOptions {
  /** Asked where the configuration names no agent: one of this process, or where one listens. */
  readonly agent: AgentApi | string;
  /** A network has another gateway. */
  readonly onMove?: () => void;
  readonly clock?: Clock;
  readonly random?: Random;
  readonly logger?: Logger;
}

interface Running {
  /** What it was started from. */
  readonly identity: string;
  readonly role: LeasedGateway | GatewayOffer;
  readonly connections: readonly RemoteAgent[];
}

export class LeasedGateways implements AsyncDisposable {
  readonly #running = new Map<string, Running>();
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #logger: Logger;
  #prober: Prober | undefined;
  #last: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly plane: Switch,
    private readonly options: LeasedGatewaysOptions,
  ) {
    this.#clock = options.clock ?? systemClock;
    this.#random = options.random ?? systemRandom;
    this.#logger = options.logger ?? silentLogger;
  }

  /** Call it after every `apply` of the switch. Leases are asked for in the background; throws for certificates that are no good. */
  follow(): Promise<void> {
    return this.#enqueue(() => this.#follow(this.plane.config.networks));
  }

  gateways(): LeasedGatewayView[] {
    return this.#roles().flatMap((role) => (role instanceof LeasedGateway ? [role.view()] : []));
  }

  /** Of a network's gateway. */
  counters(network: string): Readonly<Record<string, number>> {
    const role = this.#running.get(network)?.role;
    return role instanceof LeasedGateway ? role.counters : {};
  }

  offers(): GatewayOfferView[] {
    return this.#roles().flatMap((role) => (role instanceof GatewayOffer ? [role.view()] : []));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#enqueue(() => this.#follow({}));
    this.#prober?.[Symbol.dispose]();
  }

  #enqueue(work: () => Promise<void>): Promise<void> {
    const next = this.#last.then(work);
    this.#last = next.catch(() => undefined);
    return next;
  }

  #roles(): Array<LeasedGateway | GatewayOffer> {
    return [...this.#running.values()].map(({ role }) => role);
  }

  async #follow(networks: Readonly<Record<string, NetworkConfig>>): Promise<void> {
    const gone = [...this.#running].filter(
      ([name, { identity }]) =>
        networks[name] === undefined || this.#identityOf(name, networks[name]) !== identity,
    );
    await Promise.all(
      gone.map(async ([name, { role, connections }]) => {
        this.#running.delete(name);
        await role[Symbol.asyncDispose]();
        for (const connection of connections) connection[Symbol.dispose]();
      }),
    );
    for (const [name, network] of Object.entries(networks)) {
      if (this.#running.has(name) || (network.gateway ?? network.offer) === undefined) continue;
      this.#running.set(name, await this.#start(name, network));
    }
  }

  #identityOf(name: string, { gateway, offer, local }: NetworkConfig): string {
    return JSON.stringify([gateway, offer, local && formatIp(local), this.plane.canProbe(name)]);
  }

  async #start(network: string, config: NetworkConfig): Promise<Running> {
    const { gateway, offer } = config;
    const { agents, connect, connections } = await this.#agents((gateway ?? offer)!);
    const local = formatIp(config.local!);
    // Who asks is the network's end, not the process: what is known of a consumer outlives a restart.
    const self = `${hostname()}/${local}/${network}`;
    const shared = { clock: this.#clock, random: this.#random, logger: this.#logger };
    const asked = { agents, connect, ...shared };
    const identity = this.#identityOf(network, config);
    if (offer !== undefined) {
      const { service, mode, capacity, weight } = offer;
      const terms = { service, mode, capacity, ...(weight === undefined ? {} : { weight }) };
      const stats = () => this.plane.stats();
      const named = { network, producer: self, address: local, stats };
      return { identity, connections, role: new GatewayOffer({ ...asked, ...terms, ...named }) };
    }
    const { onMove } = this.options;
    const role = new LeasedGateway({
      ...{ network, config: gateway!, plane: this.plane, ...shared },
      consumer: new LeaseConsumer({ consumer: self, ...asked }),
      ...(this.plane.canProbe(network) ? { echo: (to: string, ms: number) => this.#echo(to, ms) } : {}),
      ...(onMove === undefined ? {} : { onMove }),
    });
    return { identity, connections, role };
  }

  #echo(address: string, timeoutMs: number): Promise<number | undefined> {
    this.#prober ??= new Prober(this.#clock);
    return this.#prober.echo(address, timeoutMs);
  }

  /** The agent to ask first, and the way to those that it names. Throws what is wrong with the certificates. */
  async #agents(given: NonNullable<NetworkConfig['gateway' | 'offer']>) {
    const agent = given.agent ?? this.options.agent;
    const { tls } = given;
    const connections: RemoteAgent[] = [];
    // gRPC is not small: loaded by those who need it.
    const { RemoteAgent: Remote } = await import('../lease/grpc/client.js');
    const connect = (address: string): AgentApi => {
      const known = connections.find((connection) => connection.address === address);
      if (known !== undefined) return known;
      const connection = new Remote(address, tls === undefined ? {} : { tls });
      connections.push(connection);
      return connection;
    };
    return { agents: [typeof agent === 'string' ? connect(agent) : agent], connect, connections };
  }
}
