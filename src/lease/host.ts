// An agent with all it stands on: its engine, its coordination (its own, or a peer's over gRPC), and its gRPC server. What the daemon
// runs, and what a script opens for itself.
//
//   alone              store ── KvCoordination ── LeaseAgent ── LeaseServer (if it listens)
//   several agents     the first:   the same, its coordination served too
//                      the others:  store (journal only), RemoteCoordination ──> the first
import type { KvEngine } from '../kv/engine.js';
import { openEngine } from '../kv/open.js';
import { type Clock, systemClock } from '../telemetry/clock.js';
import { silentLogger } from '../telemetry/logger.js';
import { LeaseAgent, type LeaseAgentOptions } from './agent.js';
import type { Coordination } from './coordination.js';
import { LeaseError } from './errors.js';
import type { TlsFiles } from './grpc/credentials.js';
import { RemoteCoordination } from './grpc/remote-coordination.js';
import { LeaseServer } from './grpc/server.js';
import { KvCoordination } from './kv-coordination.js';

/** What of an agent's options its host does not bring itself. */
type AgentOptions = Omit<LeaseAgentOptions, 'address' | 'state' | 'coordination'>;

export interface LeaseHostOptions extends AgentOptions {
  /** `memory:` or `file:DIR`. A `name` that is random suits `memory:` only. */
  readonly store: string;
  /** `unix:/path` or `host:port`; absent: this process alone uses the agent. */
  readonly listen?: string;
  /** What others are told, when that is not where it listens. */
  readonly advertise?: string;
  readonly tls?: TlsFiles;
  /** The agent that serves the coordination; absent: this one, for whoever asks. */
  readonly coordinator?: string;
  /** An agent that is silent for so long loses its producers, milliseconds; the coordinator decides. */
  readonly memberTtlMs?: number;
}

export class LeaseHost implements AsyncDisposable {
  private constructor(
    readonly agent: LeaseAgent,
    /** Where it listens; undefined: nowhere. */
    readonly address: string | undefined,
    /** Undone last one first. */
    private readonly undo: Array<() => Promise<void> | void>,
  ) {}

  static async start(options: LeaseHostOptions): Promise<LeaseHost> {
    const undo: Array<() => Promise<void> | void> = [];
    try {
      return await start(options, undo, (agent, address) => new LeaseHost(agent, address, undo));
    } catch (error) {
      await undoAll(undo);
      throw error;
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return undoAll(this.undo);
  }
}

async function start(
  options: LeaseHostOptions,
  undo: Array<() => Promise<void> | void>,
  make: (agent: LeaseAgent, address: string | undefined) => LeaseHost,
): Promise<LeaseHost> {
  const { listen, tls, clock = systemClock, logger = silentLogger } = options;
  const engine = await openEngine(options.store);
  undo.push(async () => engine[Symbol.asyncDispose]());
  const coordination = coordinationOf(options, engine, clock, undo);
  // Others are told the address when the agent joins, so the port must be known by then: the server comes first.
  const running: { agent?: LeaseAgent } = {};
  let address: string | undefined;
  if (listen !== undefined) {
    const server = await LeaseServer.listen({
      address: listen,
      agent: () => {
        if (running.agent !== undefined) return running.agent;
        throw new LeaseError('UNAVAILABLE', 'the lease agent is starting', { retryAfterMs: 500 });
      },
      logger,
      ...(tls === undefined ? {} : { tls }),
      ...(options.coordinator === undefined ? { coordination } : {}),
    });
    address = server.address;
    undo.push(() => server[Symbol.asyncDispose]());
  }
  const agent = await LeaseAgent.start({
    ...present(options, ['name', 'selector', 'services', 'forgetAfterMs', 'metrics', 'random']),
    address: options.advertise ?? address ?? '',
    state: engine,
    coordination,
    clock,
    logger,
  });
  running.agent = agent;
  undo.push(() => agent[Symbol.asyncDispose]());
  return make(agent, address);
}

function coordinationOf(
  { coordinator, tls, memberTtlMs }: LeaseHostOptions,
  engine: KvEngine,
  clock: Clock,
  undo: Array<() => Promise<void> | void>,
): Coordination {
  if (coordinator === undefined) return new KvCoordination(engine, clock, memberTtlMs);
  const remote = new RemoteCoordination(coordinator, tls === undefined ? {} : { tls });
  undo.push(() => remote[Symbol.dispose]());
  return remote;
}

async function undoAll(undo: Array<() => Promise<void> | void>): Promise<void> {
  let failure: { readonly error: unknown } | undefined;
  for (let step = undo.pop(); step !== undefined; step = undo.pop()) {
    try {
      await step();
    } catch (error) {
      failure ??= { error };
    }
  }
  if (failure !== undefined) throw failure.error;
}

/** Those of the named options that are given. */
function present<T extends object, K extends keyof T>(from: T, names: readonly K[]) {
  const given = names.filter((name) => from[name] !== undefined).map((name) => [name, from[name]]);
  return Object.fromEntries(given) as { [Name in K]?: Exclude<T[Name], undefined> };
}
