// POSIX access control lists, as pure functions on the kernel's xattr format (include/uapi/linux/posix_acl_xattr.h):
//
//   ┌─────────────┬──────────────────────────────┬────
//   │ version u32 │ tag u16 │ perm u16 │ id u32  │ ...      little-endian; version 2
//   └─────────────┴──────────────────────────────┴────
//
// Entries stand in the order user owner, named users, owning group, named groups, mask, others; the mask is there
// whenever a named one is. The kernel checks permissions with them; here they are validated, kept in step with the
// mode, and inherited (POSIX.1e draft 17, sections 23.1 and 23.3).
import { errno } from './errors.js';

export const ACCESS_ACL = Buffer.from('system.posix_acl_access');
export const DEFAULT_ACL = Buffer.from('system.posix_acl_default');

const VERSION = 2;
const UNDEFINED_ID = 0xffffffff;
const HEADER_BYTES = 4;
const ENTRY_BYTES = 8;

export enum AclTag {
  UserObject = 0x01,
  User = 0x02,
  GroupObject = 0x04,
  Group = 0x08,
  Mask = 0x10,
  Other = 0x20,
}

export interface AclEntry {
  readonly tag: AclTag;
  perm: number;
  readonly id: number;
}

export type Acl = AclEntry[];

const invalid = (why: string): Error => errno('EINVAL', `access control list: ${why}`);

/** EINVAL for anything the kernel would refuse; EOPNOTSUPP for another version. An empty list is []. */
export function parseAcl(value: Buffer): Acl {
  if (value.length < HEADER_BYTES || (value.length - HEADER_BYTES) % ENTRY_BYTES !== 0) {
    throw invalid('its length is wrong');
  }
  if (value.readUInt32LE(0) !== VERSION) throw errno('EOPNOTSUPP', 'access control list: unknown version');
  const acl: Acl = [];
  for (let at = HEADER_BYTES; at < value.length; at += ENTRY_BYTES) {
    const tag = value.readUInt16LE(at);
    const perm = value.readUInt16LE(at + 2);
    const named = tag === AclTag.User || tag === AclTag.Group;
    if (!(tag in AclTag)) throw invalid('unknown tag');
    if ((perm & ~7) !== 0) throw invalid('unknown permission');
    acl.push({ tag, perm, id: named ? value.readUInt32LE(at + 4) : UNDEFINED_ID });
  }
  if (acl.length > 0) checkOrder(acl);
  return acl;
}

function checkOrder(acl: Acl): void {
  let last = 0;
  let needsMask = false;
  for (const { tag, id } of acl) {
    const named = tag === AclTag.User || tag === AclTag.Group;
    if (named && id === UNDEFINED_ID) throw invalid('a named entry without an id');
    if (tag < last || (tag === last && !named)) throw invalid('entries out of order');
    last = tag;
    needsMask ||= named;
  }
  const has = (tag: AclTag): boolean => acl.some((entry) => entry.tag === tag);
  if (!has(AclTag.UserObject) || !has(AclTag.GroupObject) || !has(AclTag.Other)) {
    throw invalid('an entry is missing');
  }
  if (needsMask && !has(AclTag.Mask)) throw invalid('the mask is missing');
}

export function encodeAcl(acl: Acl): Buffer {
  const value = Buffer.allocUnsafe(HEADER_BYTES + acl.length * ENTRY_BYTES);
  value.writeUInt32LE(VERSION, 0);
  acl.forEach((entry, index) => {
    const at = HEADER_BYTES + index * ENTRY_BYTES;
    value.writeUInt16LE(entry.tag, at);
    value.writeUInt16LE(entry.perm, at + 2);
    value.writeUInt32LE(entry.id, at + 4);
  });
  return value;
}

/** Says no more than the mode does. */
export const isMinimal = (acl: Acl): boolean => acl.length === 3;

const find = (acl: Acl, tag: AclTag): AclEntry | undefined => acl.find((entry) => entry.tag === tag);

/** The entry that the group bits of the mode show. */
const groupClass = (acl: Acl): AclEntry => find(acl, AclTag.Mask) ?? find(acl, AclTag.GroupObject)!;

/** The mode that goes with an access ACL: its permission bits replaced, the rest kept. */
export function modeOfAcl(acl: Acl, mode: number): number {
  const owner = find(acl, AclTag.UserObject)!.perm;
  const other = find(acl, AclTag.Other)!.perm;
  return (mode & ~0o777) | (owner << 6) | (groupClass(acl).perm << 3) | other;
}

/** chmod on an inode that has an access ACL. */
export function aclOfMode(acl: Acl, mode: number): Acl {
  const changed = acl.map((entry) => ({ ...entry }));
  find(changed, AclTag.UserObject)!.perm = (mode >> 6) & 7;
  groupClass(changed).perm = (mode >> 3) & 7;
  find(changed, AclTag.Other)!.perm = mode & 7;
  return changed;
}

/** What a new inode gets from its directory's default ACL; the umask plays no part. */
export function inheritAcl(defaultAcl: Acl, mode: number): { readonly mode: number; readonly access: Acl } {
  const access = defaultAcl.map((entry) => ({ ...entry }));
  find(access, AclTag.UserObject)!.perm &= (mode >> 6) & 7;
  groupClass(access).perm &= (mode >> 3) & 7;
  find(access, AclTag.Other)!.perm &= mode & 7;
  return { mode: modeOfAcl(access, mode), access };
}
