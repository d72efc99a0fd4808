// The JavaScript side of a ring port: a script reads packets where native code wrote them and answers in place. The layout
// and the protocol of cursors and wake-ups are drawn in native/port/ring_port.h; a test compares the offsets below.
import { loadAddon } from './load.js';

interface RingPortHandle {
  kick(): void;
  /** For the switch's binding. */
  handle(): unknown;
  stats(): Record<string, number>;
  /** A worker that transmits made-up packets instead of a plane; see native/port/ring_exerciser.h. */
  exercise(packets: number, flows: number, frameBytes: number): void;
  exercised(): { readonly done: boolean; readonly seconds: number; readonly checksum: number };
  close(): void;
}

interface RingExports {
  readonly RingPort: new (
    memory: Uint8Array,
    options: {
      readonly name: string;
      readonly recordsBytes: number;
      readonly framesBytes: number;
      readonly snap: number;
      readonly verdicts: boolean;
    },
    wake: () => void,
  ) => RingPortHandle;
  readonly ringLayout: Readonly<Record<string, number>>;
}

const { RingPort, ringLayout } = loadAddon<RingExports>();

export { ringLayout };

/** Offsets within a record, its header's size, and where things stand in the shared memory. */
export const RING = {
  record: {
    ...{ size: 80, length: 0, kind: 4, verdict: 6, flags: 7, frameBytes: 8, captured: 12, key: 16 },
    ...{ flowHash: 64, ingress: 68, mark: 70, network: 72, transport: 74, payload: 76 },
  },
  key: {
    ...{ source: 0, destination: 16, sourcePort: 32, destinationPort: 34, vni: 36, vlan: 40 },
    ...{ etherType: 42, protocol: 44, ipVersion: 45 },
  },
  frame: { size: 16, length: 0, kind: 4, bytes: 8 },
  control: {
    ...{ recordsTail: 0, recordsHead: 64, scriptAsleep: 68 },
    ...{ framesTail: 128, framesHead: 192, workerAsleep: 196 },
  },
  data: 4096,
  packet: 1,
  skip: 0xffff,
} as const;

const { record: RECORD, key: KEY, control: CONTROL } = RING;
const RECORDS_TAIL = CONTROL.recordsTail >> 2;
const RECORDS_HEAD = CONTROL.recordsHead >> 2;
const SCRIPT_ASLEEP = CONTROL.scriptAsleep >> 2;
const FRAMES_TAIL = CONTROL.framesTail >> 2;
const FRAMES_HEAD = CONTROL.framesHead >> 2;
const WORKER_ASLEEP = CONTROL.workerAsleep >> 2;

export const Verdict = { drop: 0, accept: 1 } as const;
export type Verdict = (typeof Verdict)[keyof typeof Verdict];

/**
 * A packet in the ring: one object for all of them, valid during the call of the handler that was given it. Numbers are in
 * host order; addresses of IPv4 as unsigned 32-bit numbers.
 */
export class RingPacket {
  readonly #bytes: Uint8Array;
  readonly #halves: Uint16Array;
  readonly #words: Uint32Array;
  /** Byte offset of the record in the shared memory. */
  #at = 0;

  constructor(memory: SharedArrayBuffer) {
    this.#bytes = new Uint8Array(memory);
    this.#halves = new Uint16Array(memory);
    this.#words = new Uint32Array(memory);
  }

  /** For the ring alone. */
  moveTo(offset: number): this {
    this.#at = offset;
    return this;
  }

  /** Bytes of the whole frame, a superframe's up to 64 KiB. */
  get length(): number {
    return this.#words[(this.#at + RECORD.frameBytes) >> 2]!;
  }
  get ipVersion(): number {
    return this.#bytes[this.#at + RECORD.key + KEY.ipVersion]!;
  }
  get protocol(): number {
    return this.#bytes[this.#at + RECORD.key + KEY.protocol]!;
  }
  get etherType(): number {
    return this.#halves[(this.#at + RECORD.key + KEY.etherType) >> 1]!;
  }
  get vlan(): number {
    return this.#halves[(this.#at + RECORD.key + KEY.vlan) >> 1]!;
  }
  get vni(): number {
    return this.#words[(this.#at + RECORD.key + KEY.vni) >> 2]!;
  }
  get sourcePort(): number {
    return this.#halves[(this.#at + RECORD.key + KEY.sourcePort) >> 1]!;
  }
  get destinationPort(): number {
    return this.#halves[(this.#at + RECORD.key + KEY.destinationPort) >> 1]!;
  }
  get sourceIpv4(): number {
    return swap(this.#words[(this.#at + RECORD.key + KEY.source + 12) >> 2]!);
  }
  get destinationIpv4(): number {
    return swap(this.#words[(this.#at + RECORD.key + KEY.destination + 12) >> 2]!);
  }
  /** 16 bytes in the shared memory, IPv4 in its mapped form. */
  get source(): Uint8Array {
    const at = this.#at + RECORD.key + KEY.source;
    return this.#bytes.subarray(at, at + 16);
  }
  get destination(): Uint8Array {
    const at = this.#at + RECORD.key + KEY.destination;
    return this.#bytes.subarray(at, at + 16);
  }
  /** The same in both directions of a flow. */
  get flowHash(): number {
    return this.#words[(this.#at + RECORD.flowHash) >> 2]!;
  }
  get ingress(): number {
    return this.#halves[(this.#at + RECORD.ingress) >> 1]!;
  }
  get superframe(): boolean {
    return (this.#bytes[this.#at + RECORD.flags]! & 1) !== 0;
  }
  /** The transport checksum is still to be completed. */
  get partialChecksum(): boolean {
    return (this.#bytes[this.#at + RECORD.flags]! & 2) !== 0;
  }
  get fragment(): boolean {
    return (this.#bytes[this.#at + RECORD.flags]! & 4) !== 0;
  }
  get mark(): number {
    return this.#halves[(this.#at + RECORD.mark) >> 1]!;
  }
  /** Goes on with the packet, for rules to match. */
  set mark(value: number) {
    this.#halves[(this.#at + RECORD.mark) >> 1] = value;
  }
  /** The first bytes of the frame (the ring's `snap` at most), in the shared memory: copy what must last. */
  get bytes(): Uint8Array {
    const from = this.#at + RECORD.size;
    return this.#bytes.subarray(from, from + this.#words[(this.#at + RECORD.captured) >> 2]!);
  }
}

function swap(word: number): number {
  return ((word << 24) | ((word & 0xff00) << 8) | ((word >>> 8) & 0xff00) | (word >>> 24)) >>> 0;
}

export interface PacketRingOptions {
  readonly name?: string;
  /** Bytes of each packet that the script can see. */
  readonly snap?: number;
  /** True: packets wait for the script's verdict. False: it sees copies. */
  readonly verdicts?: boolean;
  /** Powers of two, 64 KiB and more: what may wait for the script, and what it may send ahead. */
  readonly recordsBytes?: number;
  readonly framesBytes?: number;
  /** Packets handled before the event loop gets its turn. */
  readonly batch?: number;
}

/** Without an answer the packet is accepted. */
export type PacketHandler = (packet: RingPacket) => Verdict | undefined;

export class PacketRing {
  readonly #port: RingPortHandle;
  readonly #control: Int32Array;
  readonly #words: Uint32Array;
  readonly #halves: Uint16Array;
  readonly #bytes: Uint8Array;
  readonly #packet: RingPacket;
  readonly #recordsBytes: number;
  readonly #framesBytes: number;
  readonly #batch: number;
  readonly #handler: PacketHandler;
  #closed = false;
  #failure: unknown;

  constructor(handler: PacketHandler, options: PacketRingOptions = {}) {
    const { name = 'script', snap = 128, verdicts = true, batch = 4096 } = options;
    const { recordsBytes = 1 << 20, framesBytes = 1 << 18 } = options;
    const memory = new SharedArrayBuffer(RING.data + recordsBytes + framesBytes);
    this.#control = new Int32Array(memory, 0, RING.data >> 2);
    this.#words = new Uint32Array(memory);
    this.#halves = new Uint16Array(memory);
    this.#bytes = new Uint8Array(memory);
    this.#packet = new RingPacket(memory);
    this.#recordsBytes = recordsBytes;
    this.#framesBytes = framesBytes;
    this.#batch = batch;
    this.#handler = handler;
    const settings = { name, recordsBytes, framesBytes, snap, verdicts };
    this.#port = new RingPort(this.#bytes, settings, () => this.#awake());
  }

  /** The native port. */
  get port(): RingPortHandle {
    return this.#port;
  }

  /** What the handler threw, if it did: from then on packets are accepted unseen. */
  get failure(): unknown {
    return this.#failure;
  }

  stats(): Record<string, number> {
    return this.#port.stats();
  }

  /** Puts a frame into the plane, as if it came in by this port. False: the ring is full. */
  send(frame: Uint8Array): boolean {
    const length = RING.frame.size + ((frame.length + 15) & ~15);
    const tail = Atomics.load(this.#control, FRAMES_TAIL) >>> 0;
    const head = Atomics.load(this.#control, FRAMES_HEAD) >>> 0;
    const toEnd = this.#framesBytes - (tail & (this.#framesBytes - 1));
    const skip = length > toEnd ? toEnd : 0;
    if (((tail - head) >>> 0) + skip + length > this.#framesBytes) return false;
    if (skip > 0) this.#putFrameHeader(tail, skip, RING.skip, 0);
    const at = this.#putFrameHeader((tail + skip) >>> 0, length, RING.packet, frame.length);
    this.#bytes.set(frame, at + RING.frame.size);
    Atomics.store(this.#control, FRAMES_TAIL, (tail + skip + length) | 0);
    this.#wakeWorker();
    return true;
  }

  /** Ends it. A switch that uses the port is closed, or has let go of it, before. */
  close(): void {
    this.#closed = true;
    this.#port.close();
  }

  #putFrameHeader(cursor: number, length: number, kind: number, bytes: number): number {
    const at = RING.data + this.#recordsBytes + (cursor & (this.#framesBytes - 1));
    this.#words[at >> 2] = length;
    this.#words[(at + RING.frame.kind) >> 2] = kind;
    this.#words[(at + RING.frame.bytes) >> 2] = bytes;
    return at;
  }

  #wakeWorker(): void {
    if (Atomics.load(this.#control, WORKER_ASLEEP) === 0) return;
    if (Atomics.exchange(this.#control, WORKER_ASLEEP, 0) !== 0) this.#port.kick();
  }

  #awake(): void {
    while (!this.#closed) {
      if (this.#consume(this.#batch) === this.#batch) {
        // More is there: the event loop gets its turn in between.
        setImmediate(() => this.#awake());
        return;
      }
      Atomics.store(this.#control, SCRIPT_ASLEEP, 1);
      const tail = Atomics.load(this.#control, RECORDS_TAIL);
      if (tail === Atomics.load(this.#control, RECORDS_HEAD)) return;
      // Something came in between; whoever takes the flag back does the work.
      if (Atomics.exchange(this.#control, SCRIPT_ASLEEP, 0) === 0) return;
    }
  }

  /** Handles up to `most` packets; how many. */
  #consume(most: number): number {
    let head = Atomics.load(this.#control, RECORDS_HEAD) >>> 0;
    const tail = Atomics.load(this.#control, RECORDS_TAIL) >>> 0;
    const mask = this.#recordsBytes - 1;
    const packet = this.#packet;
    let count = 0;
    let published = 0;
    while (head !== tail && count < most) {
      const at = RING.data + (head & mask);
      if (this.#halves[(at + RECORD.kind) >> 1] === RING.packet) {
        this.#bytes[at + RECORD.verdict] = this.#judge(packet.moveTo(at));
        ++count;
      }
      head = (head + this.#words[at >> 2]!) >>> 0;
      // Verdicts are published now and then, so that the plane works while this goes on.
      if (count - published === 64) {
        published = count;
        Atomics.store(this.#control, RECORDS_HEAD, head | 0);
        this.#wakeWorker();
      }
    }
    Atomics.store(this.#control, RECORDS_HEAD, head | 0);
    this.#wakeWorker();
    return count;
  }

  #judge(packet: RingPacket): Verdict {
    if (this.#failure !== undefined) return Verdict.accept;
    try {
      return this.#handler(packet) ?? Verdict.accept;
    } catch (error) {
      this.#failure = error ?? new Error('the packet handler threw nothing');
      process.emitWarning(`a packet handler threw; its packets are accepted from now on: ${error}`);
      return Verdict.accept;
    }
  }
}
