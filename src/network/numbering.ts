// Numbers for names, kept as long as the name is in use, and not given to another name in the configuration that drops it:
// what is learned under a number is forgotten before the number means something else.
export class Numbering {
  readonly #numbers = new Map<string, number>();
  #current = new Set<string>();
  #wanted = new Set<string>();

  constructor(private readonly max: number) {}

  /** The number of a name of the configuration being compiled. Throws RangeError when there are none left. */
  of(name: string): number {
    this.#wanted.add(name);
    const known = this.#numbers.get(name);
    if (known !== undefined) return known;
    const taken = new Set(this.#numbers.values());
    let number = 0;
    while (taken.has(number)) number += 1;
    if (number >= this.max) throw new RangeError(`more than ${this.max} names`);
    this.#numbers.set(name, number);
    return number;
  }

  nameOf(number: number): string | undefined {
    for (const [name, other] of this.#numbers) if (other === number) return name;
    return undefined;
  }

  /** The configuration whose names were asked for is in force: names that it does not have are free from the next one on. */
  commit(): void {
    for (const name of this.#numbers.keys()) {
      if (!this.#wanted.has(name) && !this.#current.has(name)) this.#numbers.delete(name);
    }
    this.#current = this.#wanted;
    this.#wanted = new Set();
  }

  /** It was refused. */
  abandon(): void {
    for (const name of this.#wanted) if (!this.#current.has(name)) this.#numbers.delete(name);
    this.#wanted = new Set();
  }
}

/** Identifiers for names, never given to another name. */
export class Identifiers {
  readonly #byName = new Map<string, bigint>();
  readonly #byId = new Map<bigint, string>();
  #next = 1n;

  of(name: string): bigint {
    const known = this.#byName.get(name);
    if (known !== undefined) return known;
    const id = this.#next;
    this.#next += 1n;
    this.#byName.set(name, id);
    this.#byId.set(id, name);
    return id;
  }

  nameOf(id: bigint): string | undefined {
    return this.#byId.get(id);
  }

  /** Forgets all but these. */
  keep(names: ReadonlySet<string>): void {
    for (const [name, id] of this.#byName) {
      if (names.has(name)) continue;
      this.#byName.delete(name);
      this.#byId.delete(id);
    }
  }
}
