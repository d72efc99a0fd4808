// Extended attributes, each a record of its own below its inode. The POSIX ACLs and security.capability among them
// change the inode as well: an access ACL carries the mode's permission bits, one that says no more than the mode
// is not stored at all, and a flag tells the gateway which answers are known to be "none".
import { ACCESS_ACL, aclOfMode, DEFAULT_ACL, encodeAcl, isMinimal, modeOfAcl, parseAcl } from './acl.js';
import type { Context } from './context.js';
import { InodeFlag, type Name, XattrMode } from './contract.js';
import { corrupt, errno } from './errors.js';
import { type Inode, isDirectory, isSymlink, S_ISGID } from './inode-record.js';
import { decodeBytes, encodeBytes } from './records.js';
import type { View } from './view.js';

/** Linux: XATTR_NAME_MAX, XATTR_SIZE_MAX, XATTR_LIST_MAX. */
const NAME_BYTES_MAX = 255;
const VALUE_BYTES_MAX = 65_536;
const LIST_BYTES_MAX = 65_536;
const CAPABILITY = Buffer.from('security.capability');
const SYSTEM = Buffer.from('system.');

function flagOf(name: Name): number {
  if (name.equals(ACCESS_ACL)) return InodeFlag.HasAccessAcl;
  if (name.equals(DEFAULT_ACL)) return InodeFlag.HasDefaultAcl;
  return name.equals(CAPABILITY) ? InodeFlag.HasCapability : 0;
}

function checkXattrName(name: Name): void {
  if (name.length === 0 || name.length > NAME_BYTES_MAX) {
    throw errno('ERANGE', `the name of an extended attribute has 1 to ${NAME_BYTES_MAX} bytes`);
  }
}

/** The inode has no attribute of that name yet. */
export function addXattr(view: View, inode: Inode, name: Name, value: Buffer): void {
  const listBytes = inode.listBytes + name.length + 1;
  if (listBytes > LIST_BYTES_MAX) throw errno('ENOSPC', 'too many extended attributes');
  view.put(view.nodeOf(inode.ino), view.keys.xattr(inode.ino, name), encodeBytes(value));
  inode.listBytes = listBytes;
  inode.flags |= flagOf(name) | InodeFlag.HasXattr;
}

/** The inode has the attribute. */
function dropXattr(view: View, inode: Inode, name: Name): void {
  view.delete(view.nodeOf(inode.ino), view.keys.xattr(inode.ino, name));
  inode.listBytes -= name.length + 1;
  inode.flags &= ~flagOf(name);
  if (inode.listBytes === 0) inode.flags &= ~InodeFlag.HasXattr;
}

function find(view: View, inode: Inode, name: Name): Buffer | undefined {
  if (inode.listBytes === 0) return undefined;
  const record = view.get(view.nodeOf(inode.ino), view.keys.xattr(inode.ino, name));
  return record === undefined ? undefined : decodeBytes(record);
}

export function readXattr(view: View, ino: number, name: Name): Buffer {
  checkXattrName(name);
  const value = find(view, view.existing(ino), name);
  if (value === undefined) throw errno('ENODATA', 'no such attribute');
  return value;
}

export function listXattrs(view: View, ino: number): Name[] {
  const inode = view.existing(ino);
  if (inode.listBytes === 0) return [];
  return view.range(view.nodeOf(ino), view.keys.xattrs(ino)).map(({ key }) => key.subarray(12));
}

export function writeXattr(
  view: View,
  context: Context,
  ino: number,
  name: Name,
  value: Buffer,
  mode: XattrMode,
  clearSgid: boolean,
): Inode {
  checkXattrName(name);
  if (value.length > VALUE_BYTES_MAX) throw errno('E2BIG', `a value has at most ${VALUE_BYTES_MAX} bytes`);
  const inode = view.existing(ino);
  const existing = find(view, inode, name);
  if (mode === XattrMode.Create && existing !== undefined) throw errno('EEXIST', 'the attribute exists');
  if (mode === XattrMode.Replace && existing === undefined) throw errno('ENODATA', 'no such attribute');
  const stored = isAclName(name) ? applyAcl(inode, name, value, clearSgid) : value;
  if (existing !== undefined) dropXattr(view, inode, name);
  if (stored !== undefined) addXattr(view, inode, name, stored);
  inode.ctime = context.now;
  view.touch(inode);
  return inode;
}

/** Names below "system." are the kernel's; only the two ACLs are known. */
function isAclName(name: Name): boolean {
  if (name.length < SYSTEM.length || name.compare(SYSTEM, 0, SYSTEM.length, 0, SYSTEM.length) !== 0) {
    return false;
  }
  if (name.equals(ACCESS_ACL) || name.equals(DEFAULT_ACL)) return true;
  throw errno('EOPNOTSUPP', 'no such attribute in the system namespace');
}

/** Validates a list, brings the mode in step, and answers what is to be stored: undefined when the mode says it all. */
function applyAcl(inode: Inode, name: Name, value: Buffer, clearSgid: boolean): Buffer | undefined {
  if (isSymlink(inode)) throw errno('EOPNOTSUPP', 'a symbolic link has no access control list');
  const acl = value.length === 0 ? [] : parseAcl(value);
  if (name.equals(DEFAULT_ACL)) {
    if (acl.length === 0) return undefined;
    if (!isDirectory(inode)) throw errno('EACCES', 'only directories have default access control lists');
    return encodeAcl(acl);
  }
  if (clearSgid) inode.mode &= ~S_ISGID;
  if (acl.length === 0) return undefined;
  inode.mode = modeOfAcl(acl, inode.mode);
  return isMinimal(acl) ? undefined : encodeAcl(acl);
}

export function deleteXattr(view: View, context: Context, ino: number, name: Name): Inode {
  checkXattrName(name);
  const inode = view.existing(ino);
  isAclName(name);
  if (find(view, inode, name) === undefined) throw errno('ENODATA', 'no such attribute');
  dropXattr(view, inode, name);
  inode.ctime = context.now;
  view.touch(inode);
  return inode;
}

/** chmod: the access ACL follows the mode. */
export function chmodAcl(view: View, inode: Inode): void {
  if ((inode.flags & InodeFlag.HasAccessAcl) === 0) return;
  const value = find(view, inode, ACCESS_ACL);
  if (value === undefined) throw corrupt(`inode ${inode.ino} lacks its access ACL`);
  const changed = encodeAcl(aclOfMode(parseAcl(value), inode.mode));
  view.put(view.nodeOf(inode.ino), view.keys.xattr(inode.ino, ACCESS_ACL), encodeBytes(changed));
}

/** What a write by an unprivileged caller takes away. */
export function dropCapability(view: View, inode: Inode): void {
  if ((inode.flags & InodeFlag.HasCapability) !== 0) dropXattr(view, inode, CAPABILITY);
}
