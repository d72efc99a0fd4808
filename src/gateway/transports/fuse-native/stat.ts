// Attributes and statistics in the shapes that fuse-native can carry: 32-bit inode numbers and block counts, times in
// whole milliseconds since 1970.
import type { Stat, Statfs } from 'fuse-native';
import {
  type Attributes,
  PAGE_SIZE,
  type Timespec,
  type VolumeStatistics,
} from '../../../metadata/contract.js';

const UINT32 = 2 ** 32;
const NAME_BYTES_MAX = 255;

/** 1970 for anything earlier: fuse-native has no negative times. */
export const milliseconds = ({ sec, nsec }: Timespec): number =>
  Math.max(0, sec * 1000 + Math.floor(nsec / 1e6));

export function timespec(ms: number): Timespec {
  const sec = Math.floor(ms / 1000);
  return { sec, nsec: (ms - sec * 1000) * 1e6 };
}

export function statOf(attributes: Attributes): Stat {
  const { mode, nlink, uid, gid, rdev, size, pages, ino, atime, mtime, ctime } = attributes;
  return {
    ...{ mode, nlink, uid, gid, rdev, size },
    ino: ino % UINT32,
    blksize: PAGE_SIZE,
    blocks: pages * (PAGE_SIZE / 512),
    atime: milliseconds(atime),
    mtime: milliseconds(mtime),
    ctime: milliseconds(ctime),
  };
}

/** Blocks grow until their number fits 32 bits: df is right to within a block. */
export function statfsOf(statistics: VolumeStatistics): Statfs {
  const { bytesTotal, bytesUsed, inodesTotal, inodesUsed } = statistics;
  let frsize = PAGE_SIZE;
  while (bytesTotal / frsize >= UINT32) frsize *= 2;
  const bfree = Math.floor(Math.max(0, bytesTotal - bytesUsed) / frsize);
  const files = Math.min(inodesTotal, UINT32 - 1);
  const ffree = Math.min(Math.max(0, inodesTotal - inodesUsed), UINT32 - 1);
  return {
    ...{ bsize: frsize, frsize, blocks: Math.floor(bytesTotal / frsize), bfree, bavail: bfree },
    ...{ files, ffree, favail: ffree, namemax: NAME_BYTES_MAX },
  };
}
