// What `switch-capture` of the admin protocol sends: its number, then packets as JSON carries them, then what was counted.
import type { CapturedPacket, CaptureSummary } from '../network/capture.js';

export type CaptureItem =
  /** In force from now on; `switch-capture-end` takes the number. */
  { readonly capture: number } | CapturedPacketItem;

/** Time as decimal digits, bytes in base64. */
export type CapturedPacketItem = Omit<CapturedPacket, 'timeNs' | 'bytes'> & {
  readonly timeNs: string;
  readonly bytes: string;
};

export type CaptureReport = Omit<CaptureSummary, 'startNs' | 'endNs'> & {
  readonly startNs: string;
  readonly endNs: string;
};

export function packetToItem({ timeNs, bytes, ...rest }: CapturedPacket): CapturedPacketItem {
  return { timeNs: String(timeNs), bytes: Buffer.from(bytes).toString('base64'), ...rest };
}

export function packetFromItem({ timeNs, bytes, ...rest }: CapturedPacketItem): CapturedPacket {
  return { timeNs: BigInt(timeNs), bytes: Buffer.from(bytes, 'base64'), ...rest };
}

export function summaryToReport({ startNs, endNs, ...rest }: CaptureSummary): CaptureReport {
  return { startNs: String(startNs), endNs: String(endNs), ...rest };
}

export function summaryFromReport({ startNs, endNs, ...rest }: CaptureReport): CaptureSummary {
  return { startNs: BigInt(startNs), endNs: BigInt(endNs), ...rest };
}
