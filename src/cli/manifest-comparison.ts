// What became of the files of an earlier manifest. The version tells a change that somebody made from one that nobody made.
import type { ContentEntry } from '../access/content-manifest.js';
import type { Manifest } from './manifest-file.js';

export interface FileProblem {
  readonly path: string;
  readonly problem: string;
}

export interface Comparison {
  /** When the earlier manifest was taken; absent when there is none to compare with. */
  readonly since?: string;
  /** The same version with the same content. */
  readonly intact: number;
  /** Other bytes at the same version, or bytes that cannot be read: damage. */
  readonly damaged: readonly FileProblem[];
  readonly changed: readonly string[];
  readonly added: readonly string[];
  /** Names of the earlier manifest whose file is not there any more. */
  readonly removed: readonly string[];
}

export class ManifestComparison {
  readonly #earlier: Manifest | undefined;
  readonly #unseen: Map<number, ContentEntry>;
  readonly #damaged: FileProblem[] = [];
  readonly #changed: string[] = [];
  readonly #added: string[] = [];
  #intact = 0;

  constructor(earlier: Manifest | undefined) {
    this.#earlier = earlier;
    this.#unseen = new Map(earlier?.entries);
  }

  add({ ino, version, path, content }: ContentEntry): void {
    const before = this.#unseen.get(ino);
    this.#unseen.delete(ino);
    if (typeof content !== 'string') this.#damaged.push({ path, problem: content.problem });
    else if (this.#earlier === undefined) return;
    else if (before === undefined) this.#added.push(path);
    else if (before.version !== version) this.#changed.push(path);
    else if (before.content === content) this.#intact += 1;
    else this.#damaged.push({ path, problem: 'its bytes changed, though nobody has written it since' });
  }

  result(): Comparison {
    return {
      ...(this.#earlier === undefined ? {} : { since: this.#earlier.at }),
      intact: this.#intact,
      damaged: this.#damaged,
      changed: this.#changed,
      added: this.#added,
      removed: [...this.#unseen.values()].map(({ path }) => path),
    };
  }
}
