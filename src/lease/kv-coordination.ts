// Coordination in a key-value engine: every step is one transaction, so that any number of instances may stand over one engine.
//
//   lease/meta                       {revision, epoch, secret}
//   lease/member/AGENT               {address, leaseMsMax, incarnation, beat}
//   lease/producer/SERVICE\0NAME     a ProducerRecord
//   lease/tokens/SERVICE             the next free fencing token
//
// Every change of a producer's record comes with a new revision, so that an instance that knows the producers of the revision in the
// store need not read them again: a registration costs the same however many producers there are.
//
// No clock is compared with another machine's: a member is dead when its `beat` has stood still for memberTtlMs by the clock of
// the instance that watches, so an instance that has just started grants everybody a full time.
import { randomBytes } from 'node:crypto';
import type { KvEngine, KvTransaction } from '../kv/engine.js';
import type { Clock } from '../telemetry/clock.js';
import type { AgentLocation, ProducerName, Registration, ServiceMode } from './contract.js';
import type {
  Coordination,
  HandedOver,
  InheritedLease,
  Joined,
  Member,
  OwnedName,
  ProducerRecord,
  View,
} from './coordination.js';
import { LeaseError } from './errors.js';
import { assign, loadMax, ranking } from './rendezvous.js';

interface Meta {
  readonly revision: number;
  readonly epoch: number;
  readonly secret: string;
}

interface MemberRecord extends Member {
  readonly beat: number;
}

interface HeartbeatStep extends View {
  readonly producers?: ProducerIndex;
}

interface Sighting {
  readonly incarnation: number;
  readonly beat: number;
  readonly atMs: number;
}

const ROOT = 'lease/';
const META = key('meta');
/** Names of members that left keep their incarnation, so that a late message of theirs is still refused. */
const gone = (agent: string) => key(`gone/${agent}`);
const memberKey = (agent: string) => key(`member/${agent}`);
const producerKey = ({ service, producer }: ProducerName) => key(`producer/${service}\0${producer}`);
const tokensKey = (service: string) => key(`tokens/${service}`);

/** Written records of which an index knows when. */
const WRITTEN_MAX = 4096;

/** The producers at one revision, as the store has them. */
class ProducerIndex {
  readonly #records = new Map<string, ProducerRecord>();
  readonly #modes = new Map<string, ServiceMode>();
  readonly #loads = new Map<string, number>();
  /** By owner, by service: sum of prior weights. */
  readonly #weights = new Map<string, Map<string, number>>();
  /** Records written since the revision `#base`, one a revision. */
  readonly #written: ProducerRecord[] = [];
  #base: number;

  constructor(revision: number, records: readonly ProducerRecord[]) {
    this.#base = revision;
    for (const record of records) this.#take(record);
  }

  get revision(): number {
    return this.#base + this.#written.length;
  }

  get size(): number {
    return this.#records.size;
  }

  get(name: ProducerName): ProducerRecord | undefined {
    return this.#records.get(nameOf(name));
  }

  /** Undefined: nobody of the service is registered. */
  modeOf(service: string): ServiceMode | undefined {
    return this.#modes.get(service);
  }

  /** Producers that an agent owns. */
  loadOf(owner: string): number {
    return this.#loads.get(owner) ?? 0;
  }

  all(): ProducerRecord[] {
    return [...this.#records.values()];
  }

  /** What was written after `revision`; undefined: not known any more. */
  since(revision: number): ProducerRecord[] | undefined {
    return revision < this.#base ? undefined : this.#written.slice(revision - this.#base);
  }

  weights(): Record<string, Record<string, number>> {
    return Object.fromEntries(
      [...this.#weights].map(([owner, services]) => [owner, Object.fromEntries(services)]),
    );
  }

  /** A record that was written; the next revision came with it. */
  put(record: ProducerRecord): void {
    this.#take(record);
    this.#written.push(record);
    if (this.#written.length <= WRITTEN_MAX) return;
    this.#base += WRITTEN_MAX / 2;
    this.#written.splice(0, WRITTEN_MAX / 2);
  }

  #take(record: ProducerRecord): void {
    const name = nameOf(record);
    const before = this.#records.get(name);
    if (before !== undefined) this.#count(before, -1);
    this.#count(record, 1);
    this.#modes.set(record.service, record.mode);
    this.#records.set(name, record);
  }

  #count({ owner, service, weight }: ProducerRecord, sign: 1 | -1): void {
    this.#loads.set(owner, this.loadOf(owner) + sign);
    const services = this.#weights.get(owner) ?? new Map<string, number>();
    this.#weights.set(owner, services.set(service, (services.get(service) ?? 0) + sign * weight));
  }
}

export class KvCoordination implements Coordination {
  readonly #seen = new Map<string, Sighting>();
  /** What the last step that read or wrote producers found; committed. */
  #producers = new ProducerIndex(0, []);
  /** Steps of one instance run one after another, so that they do not make each other run again. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly engine: KvEngine,
    private readonly clock: Clock,
    readonly memberTtlMs = 10_000,
  ) {}

  join(agent: AgentLocation, leaseMsMax: number): Promise<Joined> {
    return this.#durably(async (txn) => {
      const meta = await readMeta(txn);
      const known =
        (await read<Member>(txn, memberKey(agent.agent))) ?? (await read<Member>(txn, gone(agent.agent)));
      const incarnation = (known?.incarnation ?? 0) + 1;
      const record: MemberRecord = {
        ...agent,
        leaseMsMax: Math.max(leaseMsMax, known?.leaseMsMax ?? 0),
        incarnation,
        beat: 0,
      };
      write(txn, memberKey(agent.agent), record);
      txn.delete(gone(agent.agent));
      await reassign(txn, meta, new Set());
      return {
        incarnation,
        leaseMsMax: record.leaseMsMax,
        secret: Buffer.from(meta.secret, 'base64'),
        memberTtlMs: this.memberTtlMs,
      };
    });
  }

  async heartbeat(member: Member, knownRevision: number): Promise<View> {
    const { producers, ...view } = await this.#step(async (txn) => {
      const own = await this.#own(txn, member);
      write(txn, memberKey(member.agent), {
        ...member,
        leaseMsMax: Math.max(member.leaseMsMax, own.leaseMsMax),
        beat: own.beat + 1,
      });
      let meta = await readMeta(txn);
      const members = await readMembers(txn);
      const dead = new Set(
        members.filter((each) => each.agent !== member.agent && this.#isDead(each)).map((each) => each.agent),
      );
      if (dead.size > 0) meta = await reassign(txn, meta, dead);
      const living = members.filter((each) => !dead.has(each.agent)).map(withoutBeat);
      const view: HeartbeatStep = { revision: meta.revision, epoch: meta.epoch, members: living };
      return meta.revision === knownRevision ? view : { ...view, producers: await this.#indexAt(txn, meta) };
    });
    if (producers === undefined) return view;
    this.#producers = producers;
    const since = producers.since(knownRevision);
    const mine = (since ?? producers.all()).filter((each) => each.owner === member.agent);
    return { ...view, changes: { partial: since !== undefined, mine, weights: producers.weights() } };
  }

  leave(member: Member, leases: readonly HandedOver[]): Promise<void> {
    return this.#durably(async (txn) => {
      await this.#own(txn, member);
      const meta = await readMeta(txn);
      const handed = new Map(leases.map((each) => [nameOf(each), each]));
      await reassign(txn, meta, new Set([member.agent]), (record) => handed.get(nameOf(record)));
    });
  }

  async register(registration: Registration): Promise<AgentLocation> {
    const { owner, record, producers } = await this.#durably(async (txn) => {
      const meta = await readMeta(txn);
      const members = await readMembers(txn);
      const producers = await this.#indexAt(txn, meta);
      const mode = producers.modeOf(registration.service) ?? registration.mode;
      if (mode !== registration.mode) {
        throw new LeaseError(
          'BAD_REQUEST',
          `service "${registration.service}" is ${mode}; a producer cannot make it ${registration.mode}`,
        );
      }
      const known = producers.get(registration);
      const weight = registration.weight ?? registration.capacity;
      const agents = members.map((each) => each.agent);
      const record: ProducerRecord = known
        ? { ...known, ...registration, weight, generation: known.generation + 1 }
        : {
            ...registration,
            weight,
            generation: 1,
            owner: ownerFor(registration, producers, agents),
            epoch: meta.epoch,
            quietMs: 0,
            inherited: [],
          };
      const owner = members.find((each) => each.agent === record.owner);
      if (owner === undefined)
        throw new LeaseError('UNAVAILABLE', 'no agent is a member yet', { retryAfterMs: 1000 });
      write(txn, producerKey(registration), record);
      write(txn, META, { ...meta, revision: meta.revision + 1 });
      return { owner, record, producers };
    });
    producers.put(record);
    this.#producers = producers;
    return { agent: owner.agent, address: owner.address };
  }

  deregister(member: Member, { epoch, generation, ...name }: ProducerRecord): Promise<boolean> {
    return this.#step(async (txn) => {
      await this.#own(txn, member);
      const record = await read<ProducerRecord>(txn, producerKey(name));
      if (record === undefined) return true;
      if (record.owner !== member.agent || record.epoch !== epoch) return false;
      if (record.generation !== generation) return false;
      txn.delete(producerKey(name));
      const meta = await readMeta(txn);
      write(txn, META, { ...meta, revision: meta.revision + 1 });
      return true;
    });
  }

  drain(member: Member, { epoch, ...name }: OwnedName, draining: boolean): Promise<boolean> {
    return this.#durably(async (txn) => {
      await this.#own(txn, member);
      const record = await read<ProducerRecord>(txn, producerKey(name));
      if (record?.owner !== member.agent || record.epoch !== epoch) return false;
      write(txn, producerKey(name), { ...record, draining });
      const meta = await readMeta(txn);
      write(txn, META, { ...meta, revision: meta.revision + 1 });
      return true;
    });
  }

  locate(name: ProducerName): Promise<AgentLocation | undefined> {
    return this.#step(async (txn) => {
      const record = await read<ProducerRecord>(txn, producerKey(name));
      const owner = record && (await read<MemberRecord>(txn, memberKey(record.owner)));
      return owner && { agent: owner.agent, address: owner.address };
    });
  }

  handOver(member: Member, handed: readonly HandedOver[]): Promise<ProducerName[]> {
    return this.#durably(async (txn) => {
      await this.#own(txn, member);
      const meta = await readMeta(txn);
      const epoch = meta.epoch + 1;
      const moved: ProducerName[] = [];
      for (const each of handed) {
        const { next, ...record } = (await read<ProducerRecord>(txn, producerKey(each))) ?? {
          next: undefined,
        };
        if (next === undefined || !('owner' in record)) continue;
        if (record.owner !== member.agent || record.epoch !== each.epoch) continue;
        write(txn, producerKey(each), {
          ...record,
          owner: next,
          epoch,
          quietMs: Math.max(record.quietMs, each.quietMs),
          inherited: each.leases,
        });
        await holdFor(txn, next, each.leases);
        moved.push({ service: each.service, producer: each.producer });
      }
      if (moved.length > 0) write(txn, META, { ...meta, epoch, revision: meta.revision + 1 });
      return moved;
    });
  }

  settle(member: Member, producers: readonly OwnedName[]): Promise<void> {
    return this.#step(async (txn) => {
      await this.#own(txn, member);
      let changed = false;
      for (const name of producers) {
        const record = await read<ProducerRecord>(txn, producerKey(name));
        if (record?.owner !== member.agent || record.epoch !== name.epoch) continue;
        write(txn, producerKey(name), { ...record, quietMs: 0, inherited: [] });
        changed = true;
      }
      const meta = await readMeta(txn);
      if (changed) write(txn, META, { ...meta, revision: meta.revision + 1 });
    });
  }

  reserveTokens(service: string, count: number): Promise<number> {
    return this.#durably(async (txn) => {
      const first = (await read<number>(txn, tokensKey(service))) ?? 1;
      write(txn, tokensKey(service), first + count);
      return first;
    });
  }

  /** The caller's record; FENCED when it is no member in this incarnation. */
  async #own(txn: KvTransaction, member: Member): Promise<MemberRecord> {
    const own = await read<MemberRecord>(txn, memberKey(member.agent));
    if (own?.incarnation === member.incarnation) return own;
    const why = own === undefined ? 'its membership ran out' : 'it was started anew elsewhere';
    throw new LeaseError('FENCED', `agent ${member.agent} is no member any more: ${why}`);
  }

  /** From memory when nobody changed them since. */
  async #indexAt(txn: KvTransaction, { revision }: Meta): Promise<ProducerIndex> {
    if (this.#producers.revision === revision) return this.#producers;
    return new ProducerIndex(revision, await readAll<ProducerRecord>(txn, 'producer/'));
  }

  #isDead({ agent, incarnation, beat }: MemberRecord): boolean {
    const nowMs = this.clock.monotonicMs();
    const seen = this.#seen.get(agent);
    if (seen?.incarnation === incarnation && seen.beat === beat) return nowMs - seen.atMs > this.memberTtlMs;
    this.#seen.set(agent, { incarnation, beat, atMs: nowMs });
    return false;
  }

  /** Its effect survives a power loss when it resolves. */
  async #durably<T>(fn: (txn: KvTransaction) => Promise<T>): Promise<T> {
    const result = await this.#step(fn);
    await this.engine.sync();
    return result;
  }

  #step<T>(fn: (txn: KvTransaction) => Promise<T>): Promise<T> {
    const result = this.#turn.then(() => this.engine.transact(fn));
    this.#turn = result.catch(() => undefined);
    return result;
  }
}

/** Gives every producer its owner by rendezvous among the members that are not in `dead`; those lose their membership. */
async function reassign(
  txn: KvTransaction,
  meta: Meta,
  dead: ReadonlySet<string>,
  handed: (record: ProducerRecord) => HandedOver | undefined = () => undefined,
): Promise<Meta> {
  const members = await readMembers(txn);
  const living = members.filter((each) => !dead.has(each.agent)).map((each) => each.agent);
  const producers = await readAll<ProducerRecord>(txn, 'producer/');
  const owners = assign(producers.map(nameOf), living);
  const epoch = meta.epoch + 1;
  for (const record of producers) {
    const { next, ...rest } = record;
    const wanted = owners.get(nameOf(record)) ?? '';
    if (living.includes(record.owner)) {
      if (wanted === record.owner ? next !== undefined : next !== wanted) {
        write(txn, producerKey(record), wanted === record.owner ? rest : { ...rest, next: wanted });
      }
      continue;
    }
    // Nobody owned it: what its last owner left goes to the next one.
    const left = handed(record);
    const leases = left?.leases ?? (record.owner === '' ? record.inherited : undefined);
    const last = members.find((each) => each.agent === record.owner);
    const unknownMs =
      leases !== undefined && record.quietMs === 0 ? 0 : Math.max(record.quietMs, last?.leaseMsMax ?? 0);
    const quietMs = Math.max(unknownMs, left?.quietMs ?? 0);
    write(txn, producerKey(record), { ...rest, owner: wanted, epoch, quietMs, inherited: leases ?? [] });
    await holdFor(txn, wanted, leases ?? []);
  }
  for (const agent of dead) {
    const { incarnation, leaseMsMax, address } = members.find((each) => each.agent === agent)!;
    txn.delete(memberKey(agent));
    write(txn, gone(agent), { agent, address, incarnation, leaseMsMax });
  }
  const changed = { ...meta, epoch, revision: meta.revision + 1 };
  write(txn, META, changed);
  return changed;
}

/** Who comes after `agent` one day waits for these leases too, which may be longer than its own. */
async function holdFor(txn: KvTransaction, agent: string, leases: readonly InheritedLease[]): Promise<void> {
  const longestMs = Math.max(0, ...leases.map(({ ttlMs }) => ttlMs));
  const member = await read<MemberRecord>(txn, memberKey(agent));
  if (member === undefined || member.leaseMsMax >= longestMs) return;
  write(txn, memberKey(agent), { ...member, leaseMsMax: longestMs });
}

/** A newcomer goes to the first agent of its ranking with room; nobody else moves for it. */
function ownerFor(name: ProducerName, producers: ProducerIndex, agents: readonly string[]): string {
  const bound = loadMax(producers.size + 1, agents.length);
  return ranking(nameOf(name), agents).find((agent) => producers.loadOf(agent) < bound) ?? '';
}

export function nameOf({ service, producer }: ProducerName): string {
  return `${service}\0${producer}`;
}

function key(path: string): Buffer {
  return Buffer.from(ROOT + path, 'utf8');
}

function withoutBeat({ beat: _beat, ...member }: MemberRecord): Member {
  return member;
}

async function readMeta(txn: KvTransaction): Promise<Meta> {
  const known = await read<Meta>(txn, META);
  if (known !== undefined) return known;
  const meta = { revision: 1, epoch: 1, secret: randomBytes(32).toString('base64') };
  write(txn, META, meta);
  return meta;
}

function readMembers(txn: KvTransaction): Promise<MemberRecord[]> {
  return readAll<MemberRecord>(txn, 'member/');
}

async function readAll<T>(txn: KvTransaction, prefix: string): Promise<T[]> {
  const start = key(prefix);
  const end = Buffer.concat([start, Buffer.of(0xff)]);
  const found = await txn.range({ start, end });
  return found.map(({ value }) => JSON.parse(value.toString('utf8')) as T);
}

async function read<T>(txn: KvTransaction, at: Buffer): Promise<T | undefined> {
  const value = await txn.get(at);
  return value === undefined ? undefined : (JSON.parse(value.toString('utf8')) as T);
}

function write(txn: KvTransaction, at: Buffer, value: unknown): void {
  txn.put(at, Buffer.from(JSON.stringify(value), 'utf8'));
}
