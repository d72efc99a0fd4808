// The JavaScript end of the ring drawn in native/fuse/upcall_ring.h: requests are decoded in place, and whatever outlives
// the turn (names, values) is copied, so that a record is free again as soon as its operation was started.
import { RECORD_SKIP, UpcallRecord } from './layout.js';

const HEAD = 0;
const TAIL = 64 / 4;
const DATA = 256;
const TWO_32 = 2 ** 32;

export class UpcallRing {
  /** What native code writes to. */
  readonly bytes: Uint8Array;
  readonly #control: Int32Array;
  readonly #view: DataView;
  readonly #data: Buffer;
  readonly #mask: number;
  #tail = 0;
  /** Offset of the payload of the record being read. */
  #at = 0;
  #record = 0;

  constructor(capacity: number) {
    const memory = new SharedArrayBuffer(DATA + capacity);
    this.bytes = new Uint8Array(memory);
    this.#control = new Int32Array(memory, 0, DATA / 4);
    this.#view = new DataView(memory, DATA);
    this.#data = Buffer.from(memory, DATA);
    this.#mask = capacity - 1;
  }

  /** Moves to the next record. False when there is none. */
  next(): boolean {
    for (;;) {
      const head = Atomics.load(this.#control, HEAD) >>> 0;
      if (head === this.#tail) return false;
      this.#record = this.#tail & this.#mask;
      this.#at = this.#record + UpcallRecord.bytes;
      if (this.kind !== RECORD_SKIP) return true;
      this.release();
    }
  }

  /** Gives the record's space back. */
  release(): void {
    this.#tail = (this.#tail + this.#view.getUint32(this.#record, true)) >>> 0;
    Atomics.store(this.#control, TAIL, this.#tail | 0);
  }

  get kind(): number {
    return this.#view.getUint32(this.#record + UpcallRecord.kind, true);
  }
  get slot(): number {
    return this.#view.getUint32(this.#record + UpcallRecord.slot, true);
  }
  get uid(): number {
    return this.#view.getUint32(this.#record + UpcallRecord.uid, true);
  }
  get gid(): number {
    return this.#view.getUint32(this.#record + UpcallRecord.gid, true);
  }
  get pid(): number {
    return this.#view.getUint32(this.#record + UpcallRecord.pid, true);
  }
  get ino(): number {
    const at = this.#record + UpcallRecord.nodeid;
    return this.#view.getUint32(at, true) + this.#view.getUint32(at + 4, true) * TWO_32;
  }
  get group(): number {
    return this.#view.getUint32(this.#record + UpcallRecord.group, true);
  }
  get length(): number {
    return this.#view.getUint32(this.#record + UpcallRecord.length, true);
  }

  // ---- The payload, by offset.
  u32(offset: number): number {
    return this.#view.getUint32(this.#at + offset, true);
  }
  /** Exact below 2^53; sizes and offsets are. */
  u64(offset: number): number {
    return (
      this.#view.getUint32(this.#at + offset, true) +
      this.#view.getUint32(this.#at + offset + 4, true) * TWO_32
    );
  }
  i64(offset: number): number {
    return (
      this.#view.getUint32(this.#at + offset, true) +
      this.#view.getInt32(this.#at + offset + 4, true) * TWO_32
    );
  }
  big(offset: number): bigint {
    return this.#view.getBigUint64(this.#at + offset, true);
  }
  /** A copy of the NUL-terminated name at `offset`. */
  name(offset: number): Buffer {
    const start = this.#at + offset;
    const end = this.#data.indexOf(0, start);
    return this.#copy(start, end);
  }
  /** A copy of `length` bytes at `offset`. */
  copy(offset: number, length: number): Buffer {
    return this.#copy(this.#at + offset, this.#at + offset + length);
  }
  #copy(start: number, end: number): Buffer {
    const out = Buffer.allocUnsafe(end - start);
    this.#data.copy(out, 0, start, end);
    return out;
  }
}
