// The open handles of one mount: which inodes are open, how often, and which of them have lost their last name.
//
// An inode that is unlinked while open lives on as an orphan of the session; its last release ends it, or, where the kernel
// says when it drops an inode (it may be held without a handle), that does.

export interface OpenFile {
  readonly handle: bigint;
  readonly ino: number;
  readonly flags: number;
}

interface OpenInode {
  handles: number;
  writers: number;
  orphan: boolean;
}

const O_ACCMODE = 3;

export class OpenFiles {
  readonly #files = new Map<bigint, OpenFile>();
  readonly #inodes = new Map<number, OpenInode>();
  /** Orphans that the kernel has not dropped yet, and when (monotonic ms) they became that. */
  readonly #held = new Map<number, number>();
  #nextHandle = 1n;

  /** Registers a new handle of `ino`. `flags` are open(2)'s. */
  open(ino: number, flags: number): OpenFile {
    const file: OpenFile = { handle: this.#nextHandle, ino, flags };
    this.#nextHandle += 1n;
    this.#files.set(file.handle, file);
    const inode = this.#inodes.get(ino) ?? { handles: 0, writers: 0, orphan: false };
    inode.handles += 1;
    if ((flags & O_ACCMODE) !== 0) inode.writers += 1;
    this.#inodes.set(ino, inode);
    return file;
  }

  /** Forgets a handle. `last` says that the inode has no other; `orphan` that it has no name either. */
  release(handle: bigint): { ino: number; last: boolean; orphan: boolean } | undefined {
    const file = this.#files.get(handle);
    if (file === undefined) return undefined;
    this.#files.delete(handle);
    const inode = this.#inodes.get(file.ino)!;
    inode.handles -= 1;
    if ((file.flags & O_ACCMODE) !== 0) inode.writers -= 1;
    const last = inode.handles === 0;
    if (last) this.#inodes.delete(file.ino);
    return { ino: file.ino, last, orphan: inode.orphan };
  }

  isOpen(ino: number): boolean {
    return this.#inodes.has(ino);
  }

  handles(ino: number): number {
    return this.#inodes.get(ino)?.handles ?? 0;
  }

  hasWriters(ino: number): boolean {
    return (this.#inodes.get(ino)?.writers ?? 0) > 0;
  }

  /** Marks an open inode as unlinked: its last release must end it. */
  markOrphan(ino: number): void {
    const inode = this.#inodes.get(ino);
    if (inode === undefined) throw new Error(`inode ${ino} became an orphan without being open`);
    inode.orphan = true;
  }

  /** An inode without a name, open or not, that the kernel will say to have dropped. */
  hold(ino: number): void {
    this.#held.set(ino, performance.now());
  }

  /** The kernel dropped a held inode. True: a handle's release is still to come, and must end it. */
  drop(ino: number): boolean {
    this.#held.delete(ino);
    if (!this.#inodes.has(ino)) return false;
    this.markOrphan(ino);
    return true;
  }

  /** Whether the kernel is about to drop an inode: one that lost its name at most so long ago, and is not open. */
  holdsUnused(ageMsMax: number): boolean {
    const since = performance.now() - ageMsMax;
    for (const [ino, at] of this.#held) if (at >= since && !this.#inodes.has(ino)) return true;
    return false;
  }

  isOrphan(ino: number): boolean {
    return this.#held.has(ino) || (this.#inodes.get(ino)?.orphan ?? false);
  }

  get handleCount(): number {
    return this.#files.size;
  }
}
