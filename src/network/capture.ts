// A look at packets of the switch while they pass, for scripts and for `penstock switch capture`.
//
//   await using capture = plane.capture({ ports: ['vm1'], drops: true });
//   for await (const packet of capture) console.log(describePacket(packet));
//
// Workers copy what is meant into a bounded ring; a reader that is too slow loses packets of its capture, counted, and never
// slows the traffic. The loop ends after `count` packets, after `seconds`, or when `stop` is called.
import { type CaptureEntry, CaptureRing, dropReasons } from '../../bindings/capture.js';
import type { NativeCapture } from '../../bindings/switch.js';
import type { MatchConfigInput } from './config.js';
import { NetworkError } from './errors.js';

const RING_BYTES = 4 << 20;
export const SNAPLEN_MAX = 65_000;
const BATCH_PACKETS = 256;
const BATCH_BYTES = 1 << 20;

export interface CaptureOptions {
  /** Names of ports, `*` for every one. Absent: every port, or none when `drops` alone is asked for. */
  readonly ports?: readonly string[];
  /** Dropped packets, where and why; of packets that came by `ports` when these are given. */
  readonly drops?: boolean;
  /** As in rules, without what a packet on the wire does not tell: port, network, state, mark. */
  readonly match?: MatchConfigInput;
  /** Bytes of each packet that are kept. */
  readonly snaplen?: number;
  /** Packets after which the capture ends. */
  readonly count?: number;
  /** Time after which it ends. */
  readonly seconds?: number;
  /** What may wait for the reader, of each worker: a power of two, 256 KiB to 256 MiB. 4 MiB by default. */
  readonly ringBytes?: number;
}

export interface CapturedPacket {
  /** Nanoseconds since 1970, UTC. */
  readonly timeNs: bigint;
  /** Where it was seen; of a dropped packet, where it came from. */
  readonly port: string;
  /** Into the switch, out of it, or dropped. */
  readonly direction: CaptureEntry['direction'];
  /** Bytes of the whole frame; a superframe's are up to 64 KiB. */
  readonly length: number;
  /** Its first bytes. Checksums that were left to hardware are completed. */
  readonly bytes: Uint8Array;
  /** Why it was dropped. */
  readonly drop?: { readonly name: string; readonly sentence: string };
  /** The rule that had matched the dropped packet. */
  readonly rule?: string;
  /** Of a superframe: payload bytes of each of its segments. */
  readonly segment?: number;
}

export interface CapturePortCounts {
  /** Packets of the port while the capture ran, whether they were meant or not. */
  readonly received: number;
  readonly transmitted: number;
  /** Of what it received: dropped by the switch, or by the kernel before. */
  readonly dropped: number;
  readonly captured: number;
  /** Meant, but there was no room in the ring. */
  readonly lost: number;
}

export interface CaptureSummary {
  readonly packets: number;
  readonly lost: number;
  readonly startNs: bigint;
  readonly endNs: bigint;
  readonly ports: Readonly<Record<string, CapturePortCounts>>;
}

/** What a capture asks of the switch. */
export interface CaptureSource {
  begin(ring: CaptureRing, options: CaptureRequest): Promise<number>;
  /** Packets lost, by port number. */
  end(capture: number): Promise<readonly number[]>;
  portName(number: number): string;
  portNumber(name: string): number;
  ruleName(id: bigint): string;
  /** Of all ports, by name. */
  traffic(): ReadonlyMap<string, PortTotals>;
}

export type CaptureRequest = Omit<NativeCapture, 'matches' | 'ports' | 'everyPort'> & {
  readonly ports: readonly string[] | undefined;
  readonly match: MatchConfigInput | undefined;
};

export type PortTotals = Pick<CapturePortCounts, 'received' | 'transmitted' | 'dropped'> & {
  /** Another object once the port was attached anew, and began to count anew. */
  readonly attached: object;
};

export class Capture implements AsyncIterable<CapturedPacket>, AsyncDisposable {
  readonly #ring: CaptureRing;
  readonly #captured = new Map<string, number>();
  readonly #before: ReadonlyMap<string, PortTotals>;
  readonly #startNs = wallNs();
  readonly #started: Promise<number>;
  readonly #timer: NodeJS.Timeout | undefined;
  #packets = 0;
  #stopping: Promise<CaptureSummary> | undefined;
  #ended = false;
  #reading = false;

  /** For the switch; scripts call `Switch.capture`. */
  constructor(
    private readonly source: CaptureSource,
    workers: number,
    private readonly options: CaptureOptions,
  ) {
    const { ringBytes = RING_BYTES, snaplen = SNAPLEN_MAX, drops = false, seconds, ports, match } = options;
    if (!Number.isInteger(Math.log2(ringBytes)) || ringBytes < 1 << 18 || ringBytes > 1 << 28)
      throw new NetworkError('CONFIG', 'ringBytes: expected a power of two from 256 KiB to 256 MiB');
    if (!Number.isSafeInteger(snaplen) || snaplen < 1)
      throw new NetworkError('CONFIG', 'snaplen: expected a number of bytes above 0');
    this.#ring = new CaptureRing(workers, ringBytes);
    this.#before = source.traffic();
    const request = { ringBytes, snaplen: Math.min(snaplen, SNAPLEN_MAX), drops, ports, match };
    this.#started = source.begin(this.#ring, request);
    this.#started.catch(() => undefined); // whoever waits for `started`, reads or stops is told
    if (seconds !== undefined) {
      this.#timer = setTimeout(() => void this.stop().catch(() => undefined), seconds * 1000);
      this.#timer.unref();
    }
  }

  /** Workers copy packets from now on. Rejects with NetworkError CONFIG or PORT. */
  async started(): Promise<void> {
    await this.#started;
  }

  /** Packets as they came, a few hundred at once. One reader a capture. */
  async *batches(): AsyncGenerator<readonly CapturedPacket[], void, void> {
    if (this.#reading) throw new NetworkError('STATE', 'somebody reads this capture already');
    this.#reading = true;
    try {
      await this.#started;
      const { count = Number.POSITIVE_INFINITY } = this.options;
      while (this.#packets < count) {
        const wanted = Math.min(BATCH_PACKETS, count - this.#packets);
        const entries = this.#ring.read(wanted, BATCH_BYTES).slice(0, wanted);
        if (entries.length > 0) yield entries.map((entry) => this.#packet(entry));
        else if (this.#ended) return;
        else await this.#ring.rest();
      }
    } finally {
      await this[Symbol.asyncDispose]();
    }
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<CapturedPacket, void, void> {
    for await (const batch of this.batches()) yield* batch;
  }

  /** Nothing more is copied; the reader still gets what waits in the ring. Answers what was counted until then. */
  async stop(): Promise<CaptureSummary> {
    this.#stopping ??= this.#end();
    const summary = await this.#stopping;
    return { ...summary, packets: this.#packets, ports: this.#withCaptured(summary.ports) };
  }

  /** A capture that could not begin has nothing to end; why is told by `started`. */
  async [Symbol.asyncDispose](): Promise<void> {
    const began = await this.#started.then(
      () => true,
      () => false,
    );
    if (began) await this.stop();
  }

  async #end(): Promise<CaptureSummary> {
    clearTimeout(this.#timer);
    try {
      const lost = await this.source.end(await this.#started);
      const ports: Record<string, CapturePortCounts> = {};
      for (const [name, after] of this.source.traffic()) {
        const then = this.#before.get(name);
        const before = then?.attached === after.attached ? then : undefined;
        ports[name] = {
          received: after.received - (before?.received ?? 0),
          transmitted: after.transmitted - (before?.transmitted ?? 0),
          dropped: after.dropped - (before?.dropped ?? 0),
          captured: 0,
          lost: lost[this.source.portNumber(name)] ?? 0,
        };
      }
      const sum = lost.reduce((total, one) => total + one, 0);
      return { packets: 0, lost: sum, startNs: this.#startNs, endNs: wallNs(), ports };
    } finally {
      this.#ended = true;
      this.#ring.kick();
    }
  }

  #withCaptured(ports: CaptureSummary['ports']): CaptureSummary['ports'] {
    return Object.fromEntries(
      Object.entries(ports).map(([name, counts]) => [
        name,
        { ...counts, captured: this.#captured.get(name) ?? 0 },
      ]),
    );
  }

  #packet({ timeNs, direction, length, bytes, ...entry }: CaptureEntry): CapturedPacket {
    const port = this.source.portName(entry.port);
    this.#packets += 1;
    this.#captured.set(port, (this.#captured.get(port) ?? 0) + 1);
    return {
      ...{ timeNs, port, direction, length, bytes },
      ...(direction === 'drop' ? { drop: dropReasons[entry.reason]! } : {}),
      ...(entry.rule === 0n ? {} : { rule: this.source.ruleName(entry.rule) }),
      ...(entry.segment === 0 ? {} : { segment: entry.segment }),
    };
  }
}

function wallNs(): bigint {
  return BigInt(Math.round((performance.timeOrigin + performance.now()) * 1e6));
}
