// The reading side of a capture: packets that workers copied into a ring each, in the order of their time. The layout is drawn
// in native/switch/capture.h; a test compares the offsets below.
import { loadAddon } from './load.js';

interface CaptureExports {
  readonly captureLayout: Readonly<Record<string, number>>;
  readonly dropReasons: ReadonlyArray<{ readonly name: string; readonly sentence: string }>;
}

const { captureLayout, dropReasons } = loadAddon<CaptureExports>();

export { captureLayout, dropReasons };

export const CAPTURE = {
  record: {
    ...{ size: 40, length: 0, kind: 4, direction: 6, reason: 7, frameBytes: 8, captured: 12 },
    ...{ timeNs: 16, rule: 24, port: 32, segment: 34 },
  },
  packet: 1,
  header: 256,
  head: 64,
  records: 128,
} as const;

const { record: RECORD } = CAPTURE;
const ASLEEP = 0;
const DIRECTIONS = ['in', 'out', 'drop'] as const;

export interface CaptureEntry {
  /** Nanoseconds since 1970, UTC. */
  readonly timeNs: bigint;
  readonly direction: (typeof DIRECTIONS)[number];
  /** Why, when it was dropped: an index of `dropReasons`. */
  readonly reason: number;
  readonly port: number;
  /** Of the rule that had matched a dropped packet; 0n: none. */
  readonly rule: bigint;
  /** Bytes of the whole frame. */
  readonly length: number;
  /** Payload bytes of each segment of a superframe; 0: it is none. */
  readonly segment: number;
  /** The first bytes of the frame; the entry's own. */
  readonly bytes: Uint8Array;
}

export class CaptureRing {
  readonly memory: Uint8Array;
  readonly #words: Int32Array;
  readonly #view: DataView;
  readonly #heads: Uint32Array;
  #wake: (() => void) | undefined;
  #kicked = false;

  /** `ringBytes` of each worker: a power of two. */
  constructor(
    private readonly workers: number,
    private readonly ringBytes: number,
  ) {
    const memory = new SharedArrayBuffer(CAPTURE.header + workers * (CAPTURE.records + ringBytes));
    this.memory = new Uint8Array(memory);
    this.#words = new Int32Array(memory);
    this.#view = new DataView(memory);
    this.#heads = new Uint32Array(workers);
  }

  /** For the native side, and for whoever has something to tell the reader: `rest` ends. */
  kick(): void {
    this.#kicked = true;
    this.#wake?.();
  }

  /** Takes out what is there: about `packets` of them or `bytes`, whichever is reached first; oldest first. */
  read(packets: number, bytes: number): CaptureEntry[] {
    const taken: CaptureEntry[] = [];
    let budget = bytes;
    for (let worker = 0; worker < this.workers; worker += 1) {
      const limit = Math.ceil((packets * (worker + 1)) / this.workers);
      budget = this.#take(worker, limit, budget, taken);
    }
    if (this.workers > 1) taken.sort((a, b) => (a.timeNs < b.timeNs ? -1 : a.timeNs > b.timeNs ? 1 : 0));
    return taken;
  }

  /** Returns when there is something to read, or after `kick`. */
  async rest(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      Atomics.store(this.#words, ASLEEP, 1);
      // What came in between is seen now; what comes later finds the word set.
      if (this.#kicked || this.#waits()) resolve();
    });
    this.#wake = undefined;
    this.#kicked = false;
    Atomics.store(this.#words, ASLEEP, 0);
  }

  #region(worker: number): number {
    return CAPTURE.header + worker * (CAPTURE.records + this.ringBytes);
  }

  #waits(): boolean {
    for (let worker = 0; worker < this.workers; worker += 1)
      if (Atomics.load(this.#words, this.#region(worker) >> 2) >>> 0 !== this.#heads[worker]) return true;
    return false;
  }

  #take(worker: number, packets: number, bytes: number, into: CaptureEntry[]): number {
    const region = this.#region(worker);
    const tail = Atomics.load(this.#words, region >> 2) >>> 0;
    let head = this.#heads[worker]!;
    let left = bytes;
    while (head !== tail && into.length < packets && left > 0) {
      const at = region + CAPTURE.records + (head & (this.ringBytes - 1));
      const length = this.#view.getUint32(at, true);
      if (this.#view.getUint16(at + RECORD.kind, true) === CAPTURE.packet) into.push(this.#entry(at));
      head = (head + length) >>> 0;
      left -= length;
    }
    this.#heads[worker] = head;
    Atomics.store(this.#words, (region + CAPTURE.head) >> 2, head | 0);
    return left;
  }

  #entry(at: number): CaptureEntry {
    const view = this.#view;
    const from = at + RECORD.size;
    return {
      timeNs: view.getBigUint64(at + RECORD.timeNs, true),
      direction: DIRECTIONS[view.getUint8(at + RECORD.direction)]!,
      reason: view.getUint8(at + RECORD.reason),
      port: view.getUint16(at + RECORD.port, true),
      rule: view.getBigUint64(at + RECORD.rule, true),
      length: view.getUint32(at + RECORD.frameBytes, true),
      segment: view.getUint16(at + RECORD.segment, true),
      bytes: this.memory.slice(from, from + view.getUint32(at + RECORD.captured, true)),
    };
  }
}
