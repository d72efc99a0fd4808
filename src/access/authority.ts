// Who is asking, and what they may use: authentication first, authorisation second, nothing before either.
//
// A credential speaks for a whole volume: whoever may use a volume may act in it as any user, as the owner of a disk
// image may. Permission bits inside the volume are the gateway's kernel's to enforce.
import { MetadataError, type Namespace } from '../metadata/contract.js';
import type { LockService } from '../metadata/locks.js';
import type { Credential } from './contract.js';
import type { TokenGrant, TokenVerifier } from './tokens.js';

/** What the lock service of a volume offers to access nodes. */
export type VolumeLocks = Pick<
  LockService,
  'test' | 'acquire' | 'release' | 'releaseOwner' | 'releaseHandle' | 'onOccupied'
>;

/** A volume as the access node sees it. */
export interface Volume {
  readonly name: string;
  readonly ownerUid: number;
  /** Users besides the owner and root who may use it over a local socket. */
  readonly allowedUids: readonly number[];
  readonly namespace: Namespace;
  readonly locks: VolumeLocks;
}

export interface VolumeDirectory {
  find(name: string): Promise<Volume | undefined>;
}

/** An authenticated identity. */
export type Principal =
  | { readonly kind: 'peer'; readonly uid: number; readonly gid: number; readonly pid: number }
  | { readonly kind: 'tenant'; readonly grant: TokenGrant };

export async function authenticate(credential: Credential, tokens: TokenVerifier): Promise<Principal> {
  if (credential.kind === 'peer') {
    const { uid, gid, pid } = credential;
    if (!isId(uid) || !isId(gid)) throw denied('a peer credential has no valid user and group');
    return { kind: 'peer', uid, gid, pid };
  }
  const grant = await tokens.verify(credential.token);
  if (grant === undefined) throw denied('the token is not valid');
  return { kind: 'tenant', grant };
}

/** EACCES or ENOENT; a tenant learns nothing about volumes that its token does not name. */
export async function authorise(
  principal: Principal,
  name: string,
  volumes: VolumeDirectory,
): Promise<Volume> {
  if (principal.kind === 'tenant' && !covers(principal.grant, name)) {
    throw denied(`the token of tenant "${principal.grant.tenant}" is not for volume "${name}"`);
  }
  const volume = await volumes.find(name);
  if (volume === undefined) throw new MetadataError('ENOENT', `there is no volume "${name}"`);
  if (principal.kind === 'peer' && !admits(volume, principal.uid)) {
    throw denied(`user ${principal.uid} may not use volume "${name}"`);
  }
  return volume;
}

const covers = ({ tenant, volumes }: TokenGrant, name: string): boolean =>
  volumes.includes(name) || (volumes.includes('*') && name.startsWith(`${tenant}/`));

const admits = (volume: Volume, uid: number): boolean =>
  uid === 0 || uid === volume.ownerUid || volume.allowedUids.includes(uid);

/** (uid_t)-1 is "no user" to the kernel. */
const isId = (id: number): boolean => Number.isInteger(id) && id >= 0 && id < 0xffff_ffff;

const denied = (why: string): MetadataError => new MetadataError('EACCES', why);
