// Looks at a directory before something is mounted on it, and clears away what a killed daemon left: a mount whose other
// end is gone answers ENOTCONN to everything until it is detached.
import { execFile } from 'node:child_process';
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  statfsSync,
  statSync,
} from 'node:fs';
import { basename, delimiter, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const DETACH_POLL_MS = 5;

export interface MountEntry {
  readonly mountpoint: string;
  /** "major:minor" of the file system, the same in every mount namespace that has it. */
  readonly device: string;
  /** As in /proc/self/mountinfo: 'ext4', 'fuse.penstock', ... */
  readonly type: string;
  readonly source: string;
}

/** `code` is an errno name; the message is one line that says what to do. */
export class MountpointError extends Error {
  constructor(
    readonly code: string,
    message: string,
  ) {
    super(message);
    this.name = 'MountpointError';
  }
}

/** mountinfo(5): fields are separated by blanks, blanks inside them are octal escapes. */
export function parseMountinfo(text: string): MountEntry[] {
  const plain = (field: string) =>
    field.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [left = '', right = ''] = line.split(' - ');
      const [type = '', source = ''] = right.split(' ');
      const fields = left.split(' ');
      return { mountpoint: plain(fields[4] ?? ''), device: fields[2] ?? '', type, source: plain(source) };
    });
}

/** What is mounted on `path` (canonical) in this mount namespace, the topmost one. */
export function mountAt(path: string): MountEntry | undefined {
  const entries = parseMountinfo(readFileSync('/proc/self/mountinfo', 'utf8'));
  return entries.findLast((entry) => entry.mountpoint === path);
}

/** The real path, without touching what `path` itself names: that may be a dead mount. */
export function canonicalMountpoint(path: string): string {
  const parent = dirname(path);
  if (parent === path) return path;
  if (basename(path) === '..' || basename(path) === '.') return realpathSync(path);
  try {
    return realpathSync(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ENOENT' && code !== 'ENOTCONN') throw error;
    return join(existsSync(parent) ? realpathSync(parent) : canonicalMountpoint(parent), basename(path));
  }
}

/** A FUSE mount whose daemon is gone. statfs always asks the daemon; stat may be answered by what the kernel remembers. */
export function isDeadMount(path: string): boolean {
  if (!mountAt(path)?.type.startsWith('fuse')) return false;
  try {
    statfsSync(path);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOTCONN';
  }
}

/**
 * Takes a mount out of the tree; processes that still use it keep their descriptors. Resolves when the path is free: the
 * program that does it goes on for as long as the kernel forgets the inodes of that mount, seconds for a million.
 */
export async function detach(path: string): Promise<void> {
  const mounted = mountAt(path);
  const [program, argv] =
    process.getuid?.() === 0
      ? (['umount', ['-l', path]] as const)
      : (['fusermount3', ['-u', '-z', path]] as const);
  let refusal: string | undefined;
  let isDone = false;
  const child = execFile(program, argv, (error, _stdout, stderr) => {
    isDone = true;
    if (error !== null) refusal = stderr.trim() || error.message;
  });
  while (!isDone && mountAt(path)?.device === mounted?.device) await sleep(DETACH_POLL_MS);
  child.unref();
  if (refusal !== undefined)
    throw new MountpointError('EBUSY', `cannot detach the dead mount on ${path}: ${refusal}`);
}

/**
 * Makes sure that something can be mounted on `path` (canonical); a dead mount there is detached. Answers whether one was.
 * With `create` an absent directory is made.
 */
export async function prepareMountpoint(
  path: string,
  options: { readonly create: boolean },
): Promise<boolean> {
  const dead = isDeadMount(path);
  if (dead) await detach(path);
  const mounted = mountAt(path);
  if (mounted !== undefined) {
    const what = `${mounted.type}${mounted.source === '' ? '' : ` from ${mounted.source}`}`;
    throw new MountpointError(
      'EBUSY',
      `${path} is already a mountpoint (${what}); unmount it or choose another directory`,
    );
  }
  if (!existsSync(path)) {
    if (!options.create)
      throw new MountpointError('ENOENT', `${path} does not exist; make it with: mkdir -p ${path}`);
    mkdirSync(path, { recursive: true });
  }
  if (!statSync(path).isDirectory())
    throw new MountpointError('ENOTDIR', `${path} is not a directory; choose an empty directory`);
  if (readdirSync(path).length > 0)
    throw new MountpointError('ENOTEMPTY', `${path} is not empty; choose an empty directory`);
  return dead;
}

/** What the machine must offer for any FUSE mount. */
export function checkHost(): void {
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw code === 'ENOENT'
      ? new MountpointError(
          'ENODEV',
          'there is no /dev/fuse; load the module with "modprobe fuse", or start the container with --device /dev/fuse',
        )
      : new MountpointError(
          'EACCES',
          'no permission for /dev/fuse; run as root or allow your user to read and write it',
        );
  }
  if (process.getuid?.() === 0) return;
  const helper = (process.env.PATH ?? '')
    .split(delimiter)
    .some((directory) => existsSync(join(directory, 'fusermount3')));
  if (!helper) {
    throw new MountpointError(
      'ENOENT',
      'mounting without root needs fusermount3; install it with: apt-get install fuse3',
    );
  }
}
