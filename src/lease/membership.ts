// An agent's membership: beats, learns what changed, and knows until when it may grant exclusively.
//
//   beat sent ──> answered:  the fence stays down until `sent` + 0.8 x memberTtlMs      (the others wait the full time, from later on)
//        └──> not answered:  tried again; past that time exclusive services answer FENCED, shared ones go on
import type { Clock } from '../telemetry/clock.js';
import type { Logger } from '../telemetry/logger.js';
import type { Coordination, Member, View } from './coordination.js';
import { LeaseError } from './errors.js';

/** Two clocks may differ by so much in rate, and a thread may stall: the margin is a fifth. */
const FENCE_SHARE = 0.8;
const BEATS_PER_TTL = 6;

export interface MembershipHooks {
  /** Called one at a time; what it does is done before the next beat. */
  readonly onView: (view: View) => Promise<void>;
  /** This incarnation was superseded or its membership ran out: it joins again, owning nothing. */
  readonly onLost: () => Promise<Member>;
}

export class Membership {
  readonly counters = { beats: 0, beatsFailed: 0, lost: 0, views: 0 };
  #member: Member;
  #view: View | undefined;
  #fenceMs = Number.NEGATIVE_INFINITY;
  #revision = -1;
  readonly #stopping = new AbortController();
  #running: Promise<void> | undefined;
  #turn: Promise<void> = Promise.resolve();
  #requested: Promise<void> | undefined;

  constructor(
    member: Member,
    private readonly coordination: Coordination,
    private readonly memberTtlMs: number,
    private readonly clock: Clock,
    private readonly logger: Logger,
    private readonly hooks: MembershipHooks,
  ) {
    this.#member = member;
  }

  get member(): Member {
    return this.#member;
  }

  get view(): View | undefined {
    return this.#view;
  }

  get weights(): Readonly<Record<string, Readonly<Record<string, number>>>> {
    return this.#weights;
  }

  #weights: Readonly<Record<string, Readonly<Record<string, number>>>> = {};

  /** Monotonic milliseconds until the fence comes up; negative when it is up. */
  get fencedInMs(): number {
    return this.#fenceMs - this.clock.monotonicMs();
  }

  checkFence(): void {
    if (this.fencedInMs > 0) return;
    throw new LeaseError(
      'FENCED',
      'this agent has lost touch with the others and may not lease exclusively; ask another or wait',
      { retryAfterMs: Math.ceil(this.memberTtlMs / BEATS_PER_TTL) },
    );
  }

  /** Beats from now on; the first one is answered when it resolves. */
  async start(): Promise<void> {
    await this.beat();
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
    await this.#turn.catch(() => undefined);
    this.#fenceMs = Number.NEGATIVE_INFINITY;
  }

  /** A beat now, after the one under way; callers that come meanwhile share it. */
  beat(): Promise<void> {
    if (this.#requested !== undefined) return this.#requested;
    const requested = this.#turn.then(() => {
      this.#requested = undefined;
      return this.#beat();
    });
    this.#requested = requested;
    this.#turn = requested.catch(() => undefined);
    return requested;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      try {
        await this.clock.sleep(this.memberTtlMs / BEATS_PER_TTL, signal);
        await this.beat();
      } catch (error) {
        if (signal.aborted) return;
        this.counters.beatsFailed += 1;
        this.logger.warn(
          { error, fencedInMs: Math.round(this.fencedInMs) },
          'no answer from the coordination',
        );
      }
    }
  }

  async #beat(): Promise<void> {
    this.counters.beats += 1;
    const sentMs = this.clock.monotonicMs();
    let view: View;
    try {
      view = await this.coordination.heartbeat(this.#member, this.#revision);
    } catch (error) {
      if (!(error instanceof LeaseError && error.code === 'FENCED')) throw error;
      this.#fenceMs = Number.NEGATIVE_INFINITY;
      this.counters.lost += 1;
      this.#revision = -1;
      this.#member = await this.hooks.onLost();
      return;
    }
    // Whoever stops has counted its leases.
    if (!this.#stopping.signal.aborted) this.#fenceMs = sentMs + FENCE_SHARE * this.memberTtlMs;
    this.#view = view;
    if (view.changes === undefined) return;
    this.counters.views += 1;
    this.#weights = view.changes.weights;
    await this.hooks.onView(view);
    // Only now is it known: a view whose work failed comes again.
    this.#revision = view.revision;
  }
}
