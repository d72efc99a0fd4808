// An agent, and where it has one its coordination, as gRPC services. Translates; decides nothing.
import { rmSync } from 'node:fs';
import type {
  handleServerStreamingCall,
  handleUnaryCall,
  Server,
  ServerWritableStream,
  UntypedServiceImplementation,
} from '@grpc/grpc-js';
import type { Logger } from '../../telemetry/logger.js';
import type {
  AgentApi,
  AgentLocation,
  LeaseEvent,
  LeaseReference,
  LeaseRequest,
  ProducerName,
  Registration,
  WatchFilter,
} from '../contract.js';
import type { Coordination, HandedOver, Member, OwnedName } from '../coordination.js';
import { LeaseError } from '../errors.js';
import type { ProducerStatus } from '../status.js';
import { serverCredentials, type TlsFiles } from './credentials.js';
import { toFailure, toStatus } from './failure.js';
import { grpc } from './library.js';
import { filled, recordFromWire, recordToWire, type WireRecord } from './messages.js';
import { protocol } from './proto.js';

export interface LeaseServerOptions {
  /** `unix:/path` or `host:port`; port 0: any. */
  readonly address: string;
  readonly tls?: TlsFiles;
  /** Asked for each call; throws while there is none yet. */
  readonly agent: () => AgentApi;
  /** Other agents may agree through it. */
  readonly coordination?: Coordination;
  readonly logger: Logger;
}

/** Connections that are idle for so long are asked whether they live. */
const KEEPALIVE_MS = 10_000;
const STOP_MS = 2_000;

export class LeaseServer implements AsyncDisposable {
  readonly #server: Server;
  /** Where it listens, with the port that was chosen. */
  readonly address: string;

  private constructor(server: Server, address: string) {
    this.#server = server;
    this.address = address;
  }

  static async listen(options: LeaseServerOptions): Promise<LeaseServer> {
    const { address, tls, agent, coordination } = options;
    const server = new (grpc().Server)({
      'grpc.keepalive_time_ms': KEEPALIVE_MS,
      'grpc.keepalive_timeout_ms': KEEPALIVE_MS,
      'grpc.max_receive_message_length': MESSAGE_BYTES_MAX,
      'grpc.max_send_message_length': MESSAGE_BYTES_MAX,
    });
    const { LeaseAgent, Coordination: Coordinating } = protocol();
    server.addService(LeaseAgent.service, agentHandlers(agent, options.logger));
    if (coordination !== undefined) {
      server.addService(Coordinating.service, coordinationHandlers(coordination, options.logger));
    }
    // A socket file of an earlier life; whoever calls has made sure that nobody listens on it.
    if (address.startsWith('unix:')) rmSync(address.slice('unix:'.length), { force: true });
    const port = await new Promise<number>((resolve, reject) => {
      server.bindAsync(address, serverCredentials(address, tls), (error, bound) =>
        error === null
          ? resolve(bound)
          : reject(new LeaseError('UNAVAILABLE', error.message, { cause: error })),
      );
    });
    const bound = address.startsWith('unix:') ? address : address.replace(/:\d+$/, `:${port}`);
    return new LeaseServer(server, bound);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const force = setTimeout(() => this.#server.forceShutdown(), STOP_MS);
    await new Promise<void>((resolve) => this.#server.tryShutdown(() => resolve()));
    clearTimeout(force);
  }
}

/** 10 000 producers with their leases fit. */
export const MESSAGE_BYTES_MAX = 64 << 20;

function agentHandlers(agent: () => AgentApi, logger: Logger): UntypedServiceImplementation {
  const call = unary(logger);
  return {
    Register: call((message: Registration) => agent().register(filled(message, REGISTRATION))),
    Report: call(async ({ name, status }: { name?: ProducerName; status?: ProducerStatus }) => {
      await agent().report(filled(name, NAME), status && filled(status, STATUS));
    }),
    Deregister: call((name: ProducerName) => agent().deregister(filled(name, NAME))),
    Drain: call(({ name, draining = false }: { name?: ProducerName; draining?: boolean }) =>
      agent().drain(filled(name, NAME), draining),
    ),
    Request: call((request: LeaseRequest) => agent().request(leaseRequest(request))),
    RequestMany: call(async ({ requests = [] }: { requests?: LeaseRequest[] }) => {
      const outcomes = await agent().requestMany(requests.map(leaseRequest));
      return {
        outcomes: outcomes.map((each) => ('grant' in each ? each : { failure: toFailure(each.error) })),
      };
    }),
    Renew: call((lease: LeaseReference) => agent().renew(filled(lease, REFERENCE))),
    Release: call((lease: LeaseReference) => agent().release(filled(lease, REFERENCE))),
    Revoke: call(({ leaseId = '' }: { leaseId?: string }) => agent().revoke(leaseId)),
    Explain: call(({ leaseId = '' }: { leaseId?: string }) => agent().explain(leaseId)),
    Producers: call(async ({ service }: { service?: string }) => ({
      producers: await agent().producers(service),
    })),
    Agents: call(async () => ({ agents: await agent().agents() })),
    Watch: watching(agent),
  };
}

function coordinationHandlers(coordination: Coordination, logger: Logger): UntypedServiceImplementation {
  const call = unary(logger);
  return {
    Join: call(({ agent, leaseMsMax = 0 }: { agent?: AgentLocation; leaseMsMax?: number }) =>
      coordination.join(filled(agent, LOCATION), leaseMsMax),
    ),
    Heartbeat: call(async ({ member, knownRevision = 0 }: { member?: Member; knownRevision?: number }) => {
      const { changes, ...view } = await coordination.heartbeat(filled(member, MEMBER), knownRevision);
      if (changes === undefined) return view;
      const { partial } = changes;
      const weights = Object.entries(changes.weights).map(([agent, services]) => [agent, { services }]);
      return {
        ...view,
        changes: { partial, mine: changes.mine.map(recordToWire), weights: Object.fromEntries(weights) },
      };
    }),
    Leave: call((message: HandOverMessage) =>
      coordination.leave(filled(message.member, MEMBER), handed(message)),
    ),
    Register: call((message: Registration) => coordination.register(filled(message, REGISTRATION))),
    Deregister: call(async ({ member, record }: { member?: Member; record?: WireRecord }) => ({
      removed: await coordination.deregister(filled(member, MEMBER), recordFromWire(record!)),
    })),
    Drain: call(async ({ member, producer, draining = false }: DrainOwnedMessage) => ({
      recorded: await coordination.drain(filled(member, MEMBER), filled(producer, OWNED), draining),
    })),
    Locate: call(async (name: ProducerName) => ({ owner: await coordination.locate(filled(name, NAME)) })),
    HandOver: call(async (message: HandOverMessage) => ({
      producers: await coordination.handOver(filled(message.member, MEMBER), handed(message)),
    })),
    Settle: call(({ member, producers = [] }: OwnedNamesMessage) =>
      coordination.settle(
        filled(member, MEMBER),
        producers.map((each) => filled(each, OWNED)),
      ),
    ),
    ReserveTokens: call(async ({ service = '', count = 0 }: { service?: string; count?: number }) => ({
      first: await coordination.reserveTokens(service, count),
    })),
  };
}

interface HandOverMessage {
  readonly member?: Member;
  readonly producers?: readonly HandedOver[];
}

interface DrainOwnedMessage {
  readonly member?: Member;
  readonly producer?: OwnedName;
  readonly draining?: boolean;
}

interface OwnedNamesMessage {
  readonly member?: Member;
  readonly producers?: readonly OwnedName[];
}

// proto3 leaves out what has its default value: these are those values.
const NAME = { service: '', producer: '' };
const REGISTRATION = { ...NAME, mode: 'shared' as const, address: '', capacity: 0 };
const STATUS = { utilisation: 0, inFlight: 0, operations: 0, errors: 0, latencyMs: 0, windowMs: 0 };
const PREVIOUS = {
  leaseId: '',
  operations: 0,
  errors: 0,
  rejected: 0,
  latencyP50Ms: 0,
  latencyP99Ms: 0,
  windowMs: 0,
};
const REFERENCE = { ...NAME, leaseId: '', consumer: '', fencingToken: 0 };
const LOCATION = { agent: '', address: '' };
const MEMBER = { ...LOCATION, leaseMsMax: 0, incarnation: 0 };
const OWNED = { ...NAME, epoch: 0 };
const INHERITED = { leaseId: '', consumer: '', fencingToken: 0, revoked: false, ttlMs: 0 };

function leaseRequest(request: LeaseRequest): LeaseRequest {
  const { previous, ...rest } = filled(request, { service: '', consumer: '' });
  return previous === undefined ? rest : { ...rest, previous: filled(previous, PREVIOUS) };
}

function handed({ producers = [] }: HandOverMessage): HandedOver[] {
  return producers.map((each) => ({
    ...filled(each, { ...OWNED, quietMs: 0 }),
    leases: (each.leases ?? []).map((lease) => filled(lease, INHERITED)),
  }));
}

function unary(logger: Logger) {
  return <Request>(work: (request: Request) => Promise<unknown>): handleUnaryCall<Request, unknown> =>
    (call, callback) => {
      const failed = (error: unknown) => {
        if (!(error instanceof LeaseError))
          logger.error({ error, path: call.getPath() }, 'a lease call failed');
        callback(toStatus(error), null);
      };
      try {
        work(call.request).then((value) => callback(null, value ?? {}), failed);
      } catch (error) {
        failed(error);
      }
    };
}

function watching(agent: () => AgentApi): handleServerStreamingCall<WatchFilter, LeaseEvent> {
  return (call) => {
    const gone = new AbortController();
    call.on('cancelled', () => gone.abort());
    try {
      const events = agent().watch(call.request, gone.signal);
      // Headers first: who watches knows then that from now on nothing is missed.
      call.sendMetadata(new (grpc().Metadata)());
      void forward(call, events, gone.signal);
    } catch (error) {
      call.emit('error', toStatus(error));
    }
  };
}

async function forward(
  call: ServerWritableStream<WatchFilter, LeaseEvent>,
  events: AsyncIterable<LeaseEvent>,
  gone: AbortSignal,
): Promise<void> {
  try {
    for await (const event of events) {
      if (!call.write(event)) await writable(call, gone);
    }
    call.end();
  } catch (error) {
    call.emit('error', toStatus(error));
  }
}

function writable(call: ServerWritableStream<WatchFilter, LeaseEvent>, gone: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      call.off('drain', done);
      gone.removeEventListener('abort', done);
      resolve();
    };
    call.once('drain', done);
    gone.addEventListener('abort', done);
  });
}
