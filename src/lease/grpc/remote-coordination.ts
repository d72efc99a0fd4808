// Coordination held by another process, over gRPC.
import type { AgentLocation, ProducerName, Registration } from '../contract.js';
import type {
  Coordination,
  HandedOver,
  Joined,
  Member,
  OwnedName,
  ProducerRecord,
  View,
} from '../coordination.js';
import { Channel, type RemoteOptions } from './client.js';
import { filled, recordFromWire, recordToWire, type WireRecord } from './messages.js';

interface WireView extends Omit<View, 'changes'> {
  readonly changes?: {
    readonly partial?: boolean;
    readonly mine?: readonly WireRecord[];
    readonly weights?: Readonly<Record<string, { readonly services?: Readonly<Record<string, number>> }>>;
  };
}

const MEMBER = { agent: '', address: '', leaseMsMax: 0, incarnation: 0 };

export class RemoteCoordination implements Coordination, Disposable {
  readonly #channel: Channel;

  constructor(address: string, options: RemoteOptions = {}) {
    this.#channel = new Channel('Coordination', address, options);
  }

  async join(agent: AgentLocation, leaseMsMax: number): Promise<Joined> {
    const joined = await this.#channel.call<Joined>('Join', { agent, leaseMsMax });
    return { ...joined, secret: Buffer.from(joined.secret) };
  }

  async heartbeat(member: Member, knownRevision: number): Promise<View> {
    const wire = await this.#channel.call<WireView>('Heartbeat', { member, knownRevision });
    const { changes, ...view } = wire;
    const members = (view.members ?? []).map((each) => filled(each, MEMBER));
    if (changes === undefined) return { ...view, members };
    const weights = Object.entries(changes.weights ?? {}).map(([agent, { services = {} }]) => [
      agent,
      services,
    ]);
    return {
      ...view,
      members,
      changes: {
        partial: changes.partial ?? false,
        mine: (changes.mine ?? []).map(recordFromWire),
        weights: Object.fromEntries(weights),
      },
    };
  }

  async leave(member: Member, producers: readonly HandedOver[]): Promise<void> {
    await this.#channel.call('Leave', { member, producers });
  }

  async register(registration: Registration): Promise<AgentLocation> {
    const owner = await this.#channel.call<AgentLocation>('Register', registration);
    return filled(owner, { agent: '', address: '' });
  }

  async deregister(member: Member, record: ProducerRecord): Promise<boolean> {
    const message = { member, record: recordToWire(record) };
    const { removed = false } = await this.#channel.call<{ removed?: boolean }>('Deregister', message);
    return removed;
  }

  async drain(member: Member, { service, producer, epoch }: OwnedName, draining: boolean): Promise<boolean> {
    const message = { member, producer: { service, producer, epoch }, draining };
    const { recorded = false } = await this.#channel.call<{ recorded?: boolean }>('Drain', message);
    return recorded;
  }

  async locate({ service, producer }: ProducerName): Promise<AgentLocation | undefined> {
    const { owner } = await this.#channel.call<{ owner?: AgentLocation }>('Locate', { service, producer });
    return owner && filled(owner, { agent: '', address: '' });
  }

  async handOver(member: Member, handed: readonly HandedOver[]): Promise<ProducerName[]> {
    const message = { member, producers: handed };
    const { producers = [] } = await this.#channel.call<{ producers?: ProducerName[] }>('HandOver', message);
    return producers.map((each) => filled(each, { service: '', producer: '' }));
  }

  async settle(member: Member, names: readonly OwnedName[]): Promise<void> {
    const producers = names.map(({ service, producer, epoch }) => ({ service, producer, epoch }));
    await this.#channel.call('Settle', { member, producers });
  }

  async reserveTokens(service: string, count: number): Promise<number> {
    const { first } = await this.#channel.call<{ first: number }>('ReserveTokens', { service, count });
    return first;
  }

  [Symbol.dispose](): void {
    this.#channel.close();
  }
}
