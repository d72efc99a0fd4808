// Three agents, producers and consumers in processes of their own, and faults, up to three at a time: killed, stopped in order, frozen,
// cut off from the coordination, their wall clocks set. Afterwards everything is mended, every producer must be leased again, and a
// referee judges all that consumers did with the exclusive ones.
//
//   consumers x 3 ──> a (keeps the coordination) <── line ── b
//   producers x 2 ──>                            <── line ── c
//
// A seed decides which faults come and how long they last; what they hit is the machine's affair.
import { type Random, seededRandom } from '../../src/telemetry/random.js';
import { type Daemon, type Line, type Party, Place, until } from '../lease/processes.js';
import { judge, usesIn } from '../lease/referee.js';
import { WallClock } from '../support/wall-clock.js';

export interface SoakOptions {
  readonly seconds: number;
  readonly seed: number;
  readonly onFault?: (line: string) => void;
}

export interface SoakReport {
  readonly uses: number;
  /** How often each fault came. */
  readonly faults: Readonly<Record<string, number>>;
}

const COORDINATOR = 'a';
const OTHERS = ['b', 'c'];
const AGENTS = [COORDINATOR, ...OTHERS];
const SERVICE = 'disk';
const PRODUCERS_EACH = 4;
const PRODUCING = ['p', 'q'];
const CONSUMING = ['x', 'y', 'z'];
const CONFIG = {
  memberTtlMs: 1500,
  forgetAfterMs: 4000,
  selector: { ttlMs: 1000, ttlJitter: 0.1, slowStartMs: 0, silentAfterMs: 1500 },
};
const PAUSE_MS_MAX = 1500;
const FAULT_MS_MAX = 4000;
const AT_A_TIME_MAX = 3;
const MENDED_WITHIN_MS = 120_000;
const HOURS = [-24, -1, 0, 1, 24];

export async function soak(options: SoakOptions): Promise<SoakReport> {
  await using world = new World(options);
  await world.begin();
  const endMs = performance.now() + options.seconds * 1000;
  while (performance.now() < endMs) await world.fault();
  await world.mend();
  return { uses: judge(world.said()), faults: world.faults };
}

type Fault = readonly [kind: string, victim: string, work: () => Promise<void>];

class World implements AsyncDisposable {
  readonly faults: Record<string, number> = {};
  readonly #place = new Place();
  readonly #random: Random;
  readonly #clocks = new Map(AGENTS.map((name) => [name, new WallClock(this.#place.directory, name)]));
  readonly #agents = new Map<string, Daemon>();
  readonly #lines = new Map<string, Line>();
  readonly #consuming = new Map<string, Party>();
  readonly #producing = new Map<string, Party>();
  /** Those that were killed have said what they have said. */
  readonly #all: Party[] = [];
  #lives = 0;
  /** Faults under way, by whom they befall. */
  readonly #running = new Map<string, Promise<void>>();
  readonly #failures: unknown[] = [];

  constructor(private readonly options: SoakOptions) {
    this.#random = seededRandom(options.seed);
  }

  async begin(): Promise<void> {
    await this.#startAgent(COORDINATOR);
    const { address } = this.#agents.get(COORDINATOR)!;
    for (const name of OTHERS) this.#lines.set(name, await this.#place.line(`line-${name}`, address));
    for (const name of OTHERS) await this.#startAgent(name);
    for (const name of PRODUCING) this.#startProducers(name);
    for (const name of CONSUMING) this.#startConsumers(name);
    await this.#everyProducerUsed('at the beginning');
  }

  said() {
    return this.#all.flatMap((party) => party.said);
  }

  /** Begins a fault of somebody whom none befalls at present; waits while there are as many as may be at a time. */
  async fault(): Promise<void> {
    this.#throwFailure();
    const [kind, victim, work] = this.#pick(this.#possible());
    this.faults[kind] = (this.faults[kind] ?? 0) + 1;
    this.options.onFault?.(`${kind}: ${victim}`);
    const running = work().then(
      () => void this.#running.delete(victim),
      (error: unknown) => {
        this.#failures.push(error);
      },
    );
    this.#running.set(victim, running);
    if (this.#running.size < AT_A_TIME_MAX)
      await Promise.race([this.#pause(PAUSE_MS_MAX), ...this.#running.values()]);
    else await Promise.race(this.#running.values());
  }

  #throwFailure(): void {
    if (this.#failures.length > 0) throw this.#failures[0];
  }

  #possible(): Fault[] {
    const ofAgents = AGENTS.flatMap((name): Fault[] => [
      ['agent killed', name, () => this.#restart(name, (each) => each.kill())],
      ['agent stopped in order', name, () => this.#restart(name, (each) => each.stop())],
      ['agent frozen', name, () => this.#frozen(this.#agents.get(name)!)],
      ['wall clock set', name, async () => this.#clocks.get(name)!.stand(3600 * this.#pick(HOURS))],
    ]);
    const ofLines = OTHERS.map((name): Fault => ['cut off', `line of ${name}`, () => this.#cutOff(name)]);
    const ofConsumers = CONSUMING.flatMap((name): Fault[] => [
      [
        'consumers killed',
        name,
        () => this.#killed(this.#consuming.get(name)!, () => this.#startConsumers(name)),
      ],
      ['consumers frozen', name, () => this.#frozen(this.#consuming.get(name)!)],
    ]);
    const ofProducers = PRODUCING.map(
      (name): Fault => [
        'producers killed',
        name,
        () => this.#killed(this.#producing.get(name)!, () => this.#startProducers(name)),
      ],
    );
    const all = [...ofAgents, ...ofLines, ...ofConsumers, ...ofProducers];
    return all.filter(([, victim]) => !this.#running.has(victim));
  }

  /** Every fault ends by itself; what is left is to see that all goes on. */
  async mend(): Promise<void> {
    await Promise.all(this.#running.values());
    this.#throwFailure();
    for (const clock of this.#clocks.values()) clock.stand(0);
    await this.#everyProducerUsed('after everything was mended');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#place[Symbol.asyncDispose]();
  }

  async #everyProducerUsed(when: string): Promise<void> {
    const before = new Map(this.#all.map((party) => [party, party.said.length]));
    await until(
      `all producers are leased ${when}`,
      () => {
        const late = this.#all.flatMap((party) => usesIn(party.said.slice(before.get(party) ?? 0)));
        return new Set(late.map(({ used }) => used)).size === PRODUCING.length * PRODUCERS_EACH;
      },
      MENDED_WITHIN_MS,
    );
  }

  async #startAgent(name: string): Promise<void> {
    const line = this.#lines.get(name);
    const config = line === undefined ? CONFIG : { ...CONFIG, coordinator: line.address };
    this.#agents.set(name, await this.#place.daemon(name, config, this.#clocks.get(name)));
  }

  async #restart(name: string, end: (agent: Daemon) => Promise<void>): Promise<void> {
    await end(this.#agents.get(name)!);
    await this.#pause(FAULT_MS_MAX);
    await until(
      `agent ${name} starts`,
      () =>
        this.#startAgent(name).then(
          () => true,
          // Without the coordination it ends at once, and is started again like any service.
          (error: Error) => {
            if (!/ended with 1 before it was ready/.test(error.message)) throw error;
            return false;
          },
        ),
      MENDED_WITHIN_MS,
    );
  }

  async #frozen(process: Daemon | Party): Promise<void> {
    process.signal('SIGSTOP');
    await this.#pause(FAULT_MS_MAX);
    process.signal('SIGCONT');
  }

  async #cutOff(name: string): Promise<void> {
    this.#lines.get(name)!.cut();
    await this.#pause(FAULT_MS_MAX);
    this.#lines.get(name)!.heal();
  }

  async #killed(party: Party, again: () => void): Promise<void> {
    await party.kill();
    await this.#pause(FAULT_MS_MAX);
    again();
  }

  #startConsumers(name: string): void {
    const party = this.#party();
    // A new life has a new name: nobody goes on with the leases of a dead one.
    this.#lives += 1;
    party.tell({ do: 'consume', service: SERVICE, consumer: `${name}${this.#lives}`, times: 4 });
    this.#consuming.set(name, party);
  }

  #startProducers(name: string): void {
    const party = this.#party();
    party.tell({ do: 'produce', service: SERVICE, producer: name, mode: 'exclusive', times: PRODUCERS_EACH });
    this.#producing.set(name, party);
  }

  #party(): Party {
    const party = this.#place.party(AGENTS.map((name) => `unix:${this.#place.path(`${name}.sock`)}`));
    this.#all.push(party);
    return party;
  }

  #pick<T>(from: readonly T[]): T {
    return from[Math.floor(this.#random.uniform() * from.length)]!;
  }

  #pause(msMax: number): Promise<void> {
    return new Promise((resolve) => setTimeout(resolve, msMax * this.#random.uniform()));
  }
}
