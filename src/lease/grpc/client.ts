// An agent at the other end of a channel. Calls have a deadline; a channel that breaks is made again by gRPC.
import type { CallOptions, Client, ClientReadableStream, ServiceError } from '@grpc/grpc-js';
import type {
  AgentApi,
  AgentInfo,
  Grant,
  GrantOutcome,
  LeaseEvent,
  LeaseExplanation,
  LeaseReference,
  LeaseRequest,
  ProducerInfo,
  ProducerName,
  Registered,
  Registration,
  Renewal,
  WatchFilter,
} from '../contract.js';
import { LeaseError } from '../errors.js';
import type { CandidateExplanation } from '../explanation.js';
import type { ProducerStatus } from '../status.js';
import { clientCredentials, type TlsFiles } from './credentials.js';
import { type Failure, fromFailure, fromServiceError } from './failure.js';
import { grpc } from './library.js';
import { filled } from './messages.js';
import { protocol } from './proto.js';
import { MESSAGE_BYTES_MAX } from './server.js';

export interface RemoteOptions {
  readonly tls?: TlsFiles;
  /** For each call, milliseconds. */
  readonly timeoutMs?: number;
}

const TIMEOUT_MS = 5_000;

type Unary = (
  message: object,
  options: CallOptions,
  done: (error: ServiceError | null, value: unknown) => void,
) => void;

/** Calls methods of one service by name. */
export class Channel {
  readonly #client: Client;
  readonly #timeoutMs: number;
  readonly #secured: boolean;
  #closed = false;

  constructor(
    service: 'LeaseAgent' | 'Coordination',
    readonly address: string,
    options: RemoteOptions = {},
  ) {
    this.#timeoutMs = options.timeoutMs ?? TIMEOUT_MS;
    this.#secured = options.tls !== undefined && !address.startsWith('unix:');
    this.#client = new (protocol()[service])(address, clientCredentials(address, options.tls), {
      'grpc.max_receive_message_length': MESSAGE_BYTES_MAX,
      'grpc.max_send_message_length': MESSAGE_BYTES_MAX,
      'grpc.initial_reconnect_backoff_ms': 100,
      'grpc.min_reconnect_backoff_ms': 100,
      'grpc.max_reconnect_backoff_ms': 2_000,
      'grpc.keepalive_time_ms': 10_000,
      'grpc.keepalive_timeout_ms': 5_000,
    });
  }

  call<T>(method: string, message: object): Promise<T> {
    if (this.#closed)
      return Promise.reject(new LeaseError('CLOSED', 'this connection to the agent is closed'));
    return new Promise((resolve, reject) => {
      (this.#client as unknown as Record<string, Unary>)[method]!(
        message,
        { deadline: Date.now() + this.#timeoutMs },
        (error, value) => (error === null ? resolve(value as T) : reject(this.failure(error))),
      );
    });
  }

  stream<T>(method: string, message: object): ClientReadableStream<T> {
    type Streaming = (message: object) => ClientReadableStream<T>;
    return (this.#client as unknown as Record<string, Streaming>)[method]!(message);
  }

  failure(error: ServiceError): LeaseError {
    return fromServiceError(error, this.address, this.#secured);
  }

  close(): void {
    this.#closed = true;
    this.#client.close();
  }
}

export class RemoteAgent implements AgentApi, Disposable {
  readonly #channel: Channel;

  /** Connects with the first call. */
  constructor(
    readonly address: string,
    options: RemoteOptions = {},
  ) {
    this.#channel = new Channel('LeaseAgent', address, options);
  }

  async register(registration: Registration): Promise<Registered> {
    const { owner, reportIntervalMs } = await this.#channel.call<Registered>('Register', registration);
    return { owner: filled(owner, { agent: '', address: '' }), reportIntervalMs };
  }

  async report(name: ProducerName, producerStatus?: ProducerStatus): Promise<void> {
    const { service, producer } = name;
    const message = { name: { service, producer } };
    await this.#channel.call(
      'Report',
      producerStatus === undefined ? message : { ...message, status: producerStatus },
    );
  }

  async deregister({ service, producer }: ProducerName): Promise<void> {
    await this.#channel.call('Deregister', { service, producer });
  }

  async drain({ service, producer }: ProducerName, draining: boolean): Promise<void> {
    await this.#channel.call('Drain', { name: { service, producer }, draining });
  }

  async request(request: LeaseRequest): Promise<Grant> {
    return grantFromWire(await this.#channel.call<Grant>('Request', request));
  }

  async requestMany(requests: readonly LeaseRequest[]): Promise<GrantOutcome[]> {
    const { outcomes = [] } = await this.#channel.call<{
      outcomes?: Array<{ readonly grant?: Grant; readonly failure?: Failure }>;
    }>('RequestMany', { requests });
    return outcomes.map(({ grant, failure }) =>
      grant === undefined
        ? { error: fromFailure(filled(failure, { code: '', message: '' })) }
        : { grant: grantFromWire(grant) },
    );
  }

  async renew(lease: LeaseReference): Promise<Renewal> {
    return filled(await this.#channel.call<Renewal>('Renew', lease), { ttlMs: 0, draining: false });
  }

  async release(lease: LeaseReference): Promise<void> {
    await this.#channel.call('Release', lease);
  }

  async revoke(leaseId: string): Promise<void> {
    await this.#channel.call('Revoke', { leaseId });
  }

  async explain(leaseId: string): Promise<LeaseExplanation> {
    const found = await this.#channel.call<LeaseExplanation>('Explain', { leaseId });
    const candidates = (found.candidates ?? []).map((each) => ({
      ...filled<CandidateExplanation>(each, CANDIDATE),
      factors: filled(each.factors, FACTORS),
    }));
    return { ...filled(found, EXPLANATION), candidates };
  }

  async producers(service?: string): Promise<ProducerInfo[]> {
    const message = service === undefined ? {} : { service };
    const { producers = [] } = await this.#channel.call<{ producers?: ProducerInfo[] }>('Producers', message);
    return producers.map((each) => filled(each, INFO));
  }

  async agents(): Promise<AgentInfo[]> {
    const { agents = [] } = await this.#channel.call<{ agents?: AgentInfo[] }>('Agents', {});
    return agents.map((each) => filled(each, { agent: '', address: '', self: false, epoch: 0, weights: {} }));
  }

  async *watch(filter: WatchFilter, signal: AbortSignal): AsyncGenerator<LeaseEvent, void, void> {
    const stream = this.#channel.stream<LeaseEvent>('Watch', filter);
    const cancel = () => stream.cancel();
    signal.addEventListener('abort', cancel);
    if (signal.aborted) cancel();
    try {
      for await (const event of stream) yield filled(event as LeaseEvent, EVENT);
    } catch (error) {
      if (signal.aborted || (error as ServiceError).code === grpc().status.CANCELLED) return;
      throw this.#channel.failure(error as ServiceError);
    } finally {
      signal.removeEventListener('abort', cancel);
      stream.cancel();
    }
  }

  [Symbol.dispose](): void {
    this.#channel.close();
  }
}

function grantFromWire(grant: Grant): Grant {
  // An agent that does not say is taken for the stricter kind.
  return filled(grant, { mode: 'exclusive', address: '', fencingToken: 0, ttlMs: 0, panic: false });
}

const FACTORS = {
  prior: 0,
  producerEstimate: 0,
  consumerEstimate: 0,
  utilisationTrim: 0,
  slowStart: 0,
  errorPenalty: 0,
  updateClamp: 0,
};
const CANDIDATE = {
  producer: '',
  chosen: false,
  hot: false,
  weight: 0,
  load: 0,
  latencyFactor: 0,
  score: 0,
  statusAgeMs: 0,
  reportAgeMs: 0,
};
const EXPLANATION = {
  lease: 0,
  panic: false,
  hotLoad: 0,
  grantedAgoMs: 0,
  leaseId: '',
  service: '',
  text: '',
};
const INFO: Partial<ProducerInfo> = {
  service: '',
  mode: 'shared',
  producer: '',
  address: '',
  health: 'absent',
  draining: false,
  leases: 0,
  capacity: 0,
  prior: 0,
  weight: 0,
  load: 0,
  errorRatio: 0,
  epoch: 0,
  settling: false,
};
const EVENT: Partial<LeaseEvent> = { service: '', producer: '', leaseId: '', consumer: '', fencingToken: 0 };
