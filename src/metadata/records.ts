// The small records: usage of a node, stripes, released stripe versions, pending deletes, reservations, counters. All begin
// with the tag byte but the ones that only their own node's transactions touch (usage, counters, reservations).
import type { ReleasedStripe, Stripe } from './contract.js';
import { corrupt } from './errors.js';
import { readU64 } from './keys.js';
import { Tag } from './tag.js';

/** A stripe's offset and length are multiples of this many bytes. */
export const STRIPE_UNIT = 1024 * 1024;

/**
 * A node's share of a volume's quota and what it has used of it, in pages and inodes.
 *
 *   ┌────────────┬────────────┬───────────────┬─────────────┬─────────────┐
 *   │ pagesShare │ pagesUsed  │ pagesReserved │ inodesShare │ inodesUsed  │   f64 each
 *   └────────────┴────────────┴───────────────┴─────────────┴─────────────┘
 *
 * pagesUsed + pagesReserved <= pagesShare and inodesUsed <= inodesShare, always.
 */
export interface Usage {
  pagesShare: number;
  pagesUsed: number;
  pagesReserved: number;
  inodesShare: number;
  inodesUsed: number;
}

export function encodeUsage(usage: Usage): Buffer {
  const record = Buffer.allocUnsafe(40);
  record.writeDoubleLE(usage.pagesShare, 0);
  record.writeDoubleLE(usage.pagesUsed, 8);
  record.writeDoubleLE(usage.pagesReserved, 16);
  record.writeDoubleLE(usage.inodesShare, 24);
  record.writeDoubleLE(usage.inodesUsed, 32);
  return record;
}

export function decodeUsage(record: Buffer): Usage {
  if (record.length !== 40) throw corrupt('usage record');
  return {
    pagesShare: record.readDoubleLE(0),
    pagesUsed: record.readDoubleLE(8),
    pagesReserved: record.readDoubleLE(16),
    inodesShare: record.readDoubleLE(24),
    inodesUsed: record.readDoubleLE(32),
  };
}

/** A counter or an amount: one f64. */
export function encodeNumber(value: number): Buffer {
  const record = Buffer.allocUnsafe(8);
  record.writeDoubleLE(value, 0);
  return record;
}

export const decodeNumber = (record: Buffer | undefined): number => record?.readDoubleLE(0) ?? 0;

/** tag u8 | id f64 | version f64 | length in MiB u32 | node u32; the offset is in the key. */
export function encodeStripe(stripe: Stripe): Buffer {
  const record = Buffer.allocUnsafe(25);
  record[0] = Tag.Plain;
  record.writeDoubleLE(stripe.id, 1);
  record.writeDoubleLE(stripe.version, 9);
  record.writeUInt32LE(stripe.length / STRIPE_UNIT, 17);
  record.writeUInt32LE(stripe.node, 21);
  return record;
}

export function decodeStripe(key: Buffer, record: Buffer): Stripe {
  if (record.length !== 25) throw corrupt('stripe record');
  return {
    offset: key.readUInt32BE(12) * STRIPE_UNIT,
    length: record.readUInt32LE(17) * STRIPE_UNIT,
    id: record.readDoubleLE(1),
    version: record.readDoubleLE(9),
    node: record.readUInt32LE(21),
  };
}

/** tag u8 | storage node u32; stripe and version are in the key. */
export function encodeReleased(node: number): Buffer {
  const record = Buffer.allocUnsafe(5);
  record[0] = Tag.Plain;
  record.writeUInt32LE(node, 1);
  return record;
}

export function decodeReleased(key: Buffer, record: Buffer): ReleasedStripe {
  return { id: readU64(key, 7), version: readU64(key, 15), node: record.readUInt32LE(1) };
}

/** tag u8 | pages f64: what the removed inode still counts until its last stripe is released. */
export function encodePendingDelete(pages: number): Buffer {
  const record = Buffer.allocUnsafe(9);
  record[0] = Tag.Plain;
  record.writeDoubleLE(pages, 1);
  return record;
}

export const decodePendingDelete = (record: Buffer): number => record.readDoubleLE(1);

/** Bytes behind a tag: symlink targets and values of extended attributes. */
export function encodeBytes(bytes: Buffer): Buffer {
  const record = Buffer.allocUnsafe(1 + bytes.length);
  record[0] = Tag.Plain;
  bytes.copy(record, 1);
  return record;
}

export const decodeBytes = (record: Buffer): Buffer => record.subarray(1);

export const PRESENT = Buffer.from([Tag.Plain]);
