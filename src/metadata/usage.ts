// Counting against a node's share of the quota. A charge is split in two, so that a transaction across nodes can never
// overshoot: what consumes (more used, less share) is applied when it is prepared and taken back if it aborts; what
// gives (less used, more share) is applied only when it commits. A local transaction does both at once.
import type { Charge } from './intent.js';
import type { Usage } from './records.js';

/** The node's share does not suffice; `pages` and `inodes` say by how much at most. */
export class QuotaShort {
  constructor(
    readonly node: number,
    readonly pages: number,
    readonly inodes: number,
    /** Whose reservation on other nodes may be moved here. */
    readonly session?: number,
  ) {}
}

export const isFree = (charge: Charge): boolean =>
  charge.pages === 0 &&
  charge.inodes === 0 &&
  charge.pagesShare === 0 &&
  charge.inodesShare === 0 &&
  charge.reserved === 0;

export function consuming(charge: Charge): Charge {
  return {
    pages: Math.max(0, charge.pages),
    inodes: Math.max(0, charge.inodes),
    pagesShare: Math.min(0, charge.pagesShare),
    inodesShare: Math.min(0, charge.inodesShare),
    reserved: Math.min(0, charge.reserved),
    session: charge.session,
  };
}

export function giving(charge: Charge): Charge {
  return {
    pages: Math.min(0, charge.pages),
    inodes: Math.min(0, charge.inodes),
    pagesShare: Math.max(0, charge.pagesShare),
    inodesShare: Math.max(0, charge.inodesShare),
    reserved: Math.max(0, charge.reserved),
    session: charge.session,
  };
}

export const pagesFree = (usage: Usage): number => usage.pagesShare - usage.pagesUsed - usage.pagesReserved;
export const inodesFree = (usage: Usage): number => usage.inodesShare - usage.inodesUsed;

/** Adds `charge` (`sign` -1: takes it back). Throws QuotaShort, having changed nothing, when the share does not suffice. */
export function applyCharge(node: number, usage: Usage, charge: Charge, sign: 1 | -1): void {
  const pages = pagesFree(usage) - sign * (charge.pages + charge.reserved - charge.pagesShare);
  const inodes = inodesFree(usage) - sign * (charge.inodes - charge.inodesShare);
  const grows = sign === 1 && (charge.pages > 0 || charge.pagesShare < 0);
  const multiplies = sign === 1 && (charge.inodes > 0 || charge.inodesShare < 0);
  if ((grows && pages < 0) || (multiplies && inodes < 0)) {
    throw new QuotaShort(node, Math.max(0, -pages), Math.max(0, -inodes));
  }
  usage.pagesUsed += sign * charge.pages;
  usage.inodesUsed += sign * charge.inodes;
  usage.pagesShare += sign * charge.pagesShare;
  usage.inodesShare += sign * charge.inodesShare;
  usage.pagesReserved += sign * charge.reserved;
}
