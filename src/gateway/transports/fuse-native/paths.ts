// Paths to inodes. libfuse's high-level interface speaks paths, our operations speak inodes: a path is walked from the root,
// one lookup per name, without a cache of its own (the session behind the operations has one, and knows when it is stale).
//
// fuse-native hands names over as UTF-8 text. A name that is not UTF-8 arrives with U+FFFD in it, the bytes are lost, so
// such a path is refused with EILSEQ rather than answered for another file.
import { ROOT_INO } from '../../../metadata/contract.js';
import type { Entry, FileSystemOperations, RequestContext } from '../../transport.js';

export class PathError extends Error {
  constructor(
    readonly code: 'ENOENT' | 'EILSEQ' | 'EBADF' | 'EBUSY',
    message: string,
  ) {
    super(message);
    this.name = 'PathError';
  }
}

export interface Place {
  readonly parent: number;
  readonly name: Buffer;
}

export class PathWalk {
  readonly #operations: FileSystemOperations;
  readonly #context: RequestContext;

  constructor(operations: FileSystemOperations, context: RequestContext) {
    this.#operations = operations;
    this.#context = context;
  }

  async entry(path: string): Promise<Entry> {
    const names = namesOf(path);
    if (names.length === 0) return this.#operations.getAttributes(this.#context, ROOT_INO);
    const { parent, name } = await this.place(path);
    return this.#lookup(parent, name);
  }

  async ino(path: string): Promise<number> {
    return path === '/' ? ROOT_INO : (await this.entry(path)).attributes.ino;
  }

  /** The directory of the last name. The root has none: EBUSY. */
  async place(path: string): Promise<Place> {
    const names = namesOf(path);
    const name = names.pop();
    if (name === undefined) throw new PathError('EBUSY', 'the root of the volume has no name');
    let parent = ROOT_INO;
    for (const step of names) parent = (await this.#lookup(parent, step)).attributes.ino;
    return { parent, name };
  }

  async #lookup(parent: number, name: Buffer): Promise<Entry> {
    const entry = await this.#operations.lookup(this.#context, parent, name);
    if ('attributes' in entry) return entry;
    throw new PathError('ENOENT', 'no such name');
  }
}

function namesOf(path: string): Buffer[] {
  if (path.includes('\ufffd')) throw new PathError('EILSEQ', 'fuse-native knows only names that are UTF-8');
  return path
    .split('/')
    .filter((name) => name !== '')
    .map((name) => Buffer.from(name));
}
