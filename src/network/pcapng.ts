// Packet captures as files: pcapng (draft-ietf-opsawg-pcapng), little-endian, one section, an interface a port.
//
//   block    | type 4 | total length 4 | body, padded to 4 | total length 4 |
//   section  SHB, then IDB of a port before its first packet, EPB a packet, ISB of every port at the end
//   option   | code 2 | length 2 | value, padded to 4 |, the last one is code 0
//
// Time stamps are nanoseconds (if_tsresol 9). What became of a packet that the switch dropped stands in its comment.
import type { CapturedPacket, CaptureSummary } from './capture.js';

const BLOCK = { section: 0x0a0d0d0a, interface: 1, statistics: 5, packet: 6 } as const;
const BYTE_ORDER_MAGIC = 0x1a2b3c4d;
const LINKTYPE_ETHERNET = 1;
const NANOSECONDS = 9;
const OPTION = {
  comment: 1,
  section: { application: 4 },
  interface: { name: 2, resolution: 9 },
  packet: { flags: 2 },
  statistics: { start: 2, end: 3, received: 4, dropped: 5, lost: 7, delivered: 8 },
} as const;
/** epb_flags, the two lowest bits. */
const INBOUND = 1;
const OUTBOUND = 2;

export interface PcapngSink {
  /** The bytes are not changed afterwards. */
  write(bytes: Uint8Array): unknown;
}

export interface PcapngOptions {
  /** shb_userappl. */
  readonly application?: string;
  /** Of the capture: what interfaces are said to have been cut to; 0: nothing was cut. */
  readonly snaplen?: number;
}

/** What of a packet goes into a file. */
export type PcapngPacket = Pick<CapturedPacket, 'timeNs' | 'port' | 'direction' | 'length' | 'bytes'> &
  Partial<Pick<CapturedPacket, 'drop' | 'rule' | 'segment'>>;

export class PcapngWriter {
  readonly #interfaces = new Map<string, number>();
  readonly #sink: PcapngSink;
  readonly #snaplen: number;

  /** Writes the section's header at once. */
  constructor(sink: PcapngSink, options: PcapngOptions = {}) {
    this.#sink = sink;
    this.#snaplen = options.snaplen ?? 0;
    const body = Buffer.alloc(16);
    body.writeUInt32LE(BYTE_ORDER_MAGIC, 0);
    body.writeUInt16LE(1, 4);
    body.writeBigInt64LE(-1n, 8);
    this.#block(BLOCK.section, [
      body,
      ...this.#options([[OPTION.section.application, text(options.application ?? 'penstock')]]),
    ]);
  }

  /** What the sink's `write` answered: false from a stream that wants to be waited for. */
  write(packet: PcapngPacket): unknown {
    const { bytes, timeNs } = packet;
    const body = Buffer.alloc(20);
    body.writeUInt32LE(this.#interface(packet.port), 0);
    putTime(body, 4, timeNs);
    body.writeUInt32LE(bytes.length, 12);
    body.writeUInt32LE(packet.length, 16);
    const flags = Buffer.alloc(4);
    flags.writeUInt32LE(packet.direction === 'out' ? OUTBOUND : INBOUND);
    const comment = describeFate(packet);
    return this.#block(BLOCK.packet, [
      body,
      bytes,
      padding(bytes.length),
      ...this.#options([
        ...(comment === undefined ? [] : [[OPTION.comment, text(comment)] as const]),
        [OPTION.packet.flags, flags],
      ]),
    ]);
  }

  /** Says of every port what the switch dropped, and what the capture could not keep up with. The sink is not closed. */
  end(summary: CaptureSummary): unknown {
    let answer: unknown;
    for (const [port, counts] of Object.entries(summary.ports)) {
      const body = Buffer.alloc(12);
      body.writeUInt32LE(this.#interface(port), 0);
      putTime(body, 4, summary.endNs);
      answer = this.#block(BLOCK.statistics, [
        body,
        ...this.#options([
          [OPTION.statistics.start, time(summary.startNs)],
          [OPTION.statistics.end, time(summary.endNs)],
          [OPTION.statistics.received, count(counts.received + counts.transmitted)],
          [OPTION.statistics.dropped, count(counts.dropped)],
          [OPTION.statistics.lost, count(counts.lost)],
          [OPTION.statistics.delivered, count(counts.captured)],
        ]),
      ]);
    }
    return answer;
  }

  #interface(port: string): number {
    const known = this.#interfaces.get(port);
    if (known !== undefined) return known;
    const index = this.#interfaces.size;
    this.#interfaces.set(port, index);
    const body = Buffer.alloc(8);
    body.writeUInt16LE(LINKTYPE_ETHERNET, 0);
    body.writeUInt32LE(this.#snaplen, 4);
    this.#block(BLOCK.interface, [
      body,
      ...this.#options([
        [OPTION.interface.name, text(port)],
        [OPTION.interface.resolution, Uint8Array.of(NANOSECONDS)],
      ]),
    ]);
    return index;
  }

  #options(options: ReadonlyArray<readonly [code: number, value: Uint8Array]>): Uint8Array[] {
    const parts = options.flatMap(([code, value]) => {
      const header = Buffer.alloc(4);
      header.writeUInt16LE(code, 0);
      header.writeUInt16LE(value.length, 2);
      return [header, value, padding(value.length)];
    });
    return [...parts, Buffer.alloc(4)];
  }

  #block(type: number, parts: readonly Uint8Array[]): unknown {
    const total = parts.reduce((sum, part) => sum + part.length, 12);
    const header = Buffer.alloc(8);
    header.writeUInt32LE(type, 0);
    header.writeUInt32LE(total, 4);
    return this.#sink.write(Buffer.concat([header, ...parts, header.subarray(4)], total));
  }
}

/** Why a packet was dropped and by which rule, and whether it stands for several; undefined of plain packets. */
export function describeFate({ drop, rule, segment }: Partial<CapturedPacket>): string | undefined {
  const parts: string[] = [];
  if (drop !== undefined) parts.push(`dropped: ${drop.name} (${drop.sentence})`);
  if (rule !== undefined) parts.push(`rule ${rule}`);
  if (segment !== undefined) parts.push(`superframe, ${segment} bytes a segment`);
  return parts.length === 0 ? undefined : parts.join(', ');
}

function padding(length: number): Uint8Array {
  return new Uint8Array(-length & 3);
}

function text(value: string): Uint8Array {
  return Buffer.from(value, 'utf8');
}

function time(timeNs: bigint): Uint8Array {
  const bytes = Buffer.alloc(8);
  putTime(bytes, 0, timeNs);
  return bytes;
}

function count(value: number): Uint8Array {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

/** The upper half first, each half in the section's byte order. */
function putTime(bytes: Buffer, at: number, timeNs: bigint): void {
  bytes.writeUInt32LE(Number(timeNs >> 32n), at);
  bytes.writeUInt32LE(Number(timeNs & 0xffff_ffffn), at + 4);
}
