// A namespace as simple as it can be: the model that random histories are compared with. Knows names, links, types and
// error codes; no times, owners or quotas.
import { RenameFlag } from '../../src/metadata/contract.js';

export interface Node {
  readonly directory: boolean;
  readonly id: number;
  nlink: number;
  parent?: Node;
  readonly entries: Map<string, Node>;
}

export class Refused extends Error {
  constructor(readonly code: string) {
    super(code);
  }
}

export class Model {
  #ids = 0;
  readonly root: Node = { directory: true, id: 0, nlink: 2, entries: new Map() };

  /** The directory at a path of names; fails as a walk by lookups does. */
  walk(path: readonly string[]): Node {
    let at = this.root;
    for (const text of path) at = this.#get(this.#directory(at), text);
    return at;
  }

  lookup(parent: Node, text: string): Node {
    return this.#get(this.#directory(parent), text);
  }

  create(parent: Node, text: string, directory: boolean): Node {
    this.#directory(parent);
    if (parent.entries.has(text)) throw new Refused('EEXIST');
    const node: Node = { directory, id: ++this.#ids, nlink: directory ? 2 : 1, entries: new Map() };
    if (directory) {
      node.parent = parent;
      parent.nlink += 1;
    }
    parent.entries.set(text, node);
    return node;
  }

  link(node: Node, parent: Node, text: string): void {
    this.#directory(parent);
    if (node.nlink === 0) throw new Refused('ENOENT');
    if (node.directory) throw new Refused('EPERM');
    if (parent.entries.has(text)) throw new Refused('EEXIST');
    parent.entries.set(text, node);
    node.nlink += 1;
  }

  unlink(parent: Node, text: string): void {
    const node = this.#get(this.#directory(parent), text);
    if (node.directory) throw new Refused('EISDIR');
    parent.entries.delete(text);
    node.nlink -= 1;
  }

  rmdir(parent: Node, text: string): void {
    const node = this.#get(this.#directory(parent), text);
    if (!node.directory) throw new Refused('ENOTDIR');
    if (node.entries.size > 0) throw new Refused('ENOTEMPTY');
    parent.entries.delete(text);
    parent.nlink -= 1;
    node.nlink = 0;
  }

  rename(from: Node, old: string, to: Node, text: string, flags: number): void {
    this.#directory(from);
    this.#directory(to);
    const node = this.#get(from, old);
    const target = to.entries.get(text);
    if (flags === RenameFlag.Exchange) {
      if (target === undefined) throw new Refused('ENOENT');
      if (target === node) return;
      if (from !== to) {
        if (node.directory && this.#inside(to, node)) throw new Refused('EINVAL');
        if (target.directory && this.#inside(from, target)) throw new Refused('EINVAL');
      }
      this.#move(node, from, to);
      this.#move(target, to, from);
      from.entries.set(old, target);
      to.entries.set(text, node);
      return;
    }
    if (target !== undefined) {
      if (flags === RenameFlag.NoReplace) throw new Refused('EEXIST');
      if (target === node) return;
    }
    if (node.directory && this.#inside(to, node)) throw new Refused('EINVAL');
    if (target !== undefined) {
      if (target.directory && !node.directory) throw new Refused('EISDIR');
      if (!target.directory && node.directory) throw new Refused('ENOTDIR');
      if (target.entries.size > 0) throw new Refused('ENOTEMPTY');
      if (target.directory) to.nlink -= 1;
      target.nlink -= target.directory ? 2 : 1;
    }
    from.entries.delete(old);
    to.entries.set(text, node);
    this.#move(node, from, to);
  }

  #move(node: Node, from: Node, to: Node): void {
    if (!node.directory) return;
    from.nlink -= 1;
    to.nlink += 1;
    node.parent = to;
  }

  #inside(at: Node | undefined, node: Node): boolean {
    for (let step = at; step !== undefined; step = step.parent) if (step === node) return true;
    return false;
  }

  #directory(node: Node): Node {
    if (node.nlink === 0) throw new Refused('ENOENT');
    if (!node.directory) throw new Refused('ENOTDIR');
    return node;
  }

  #get(parent: Node, text: string): Node {
    const node = parent.entries.get(text);
    if (node === undefined) throw new Refused('ENOENT');
    return node;
  }

  /** Every path with type and link count, sorted. */
  picture(node = this.root, path = ''): string[] {
    const lines: string[] = [];
    for (const [text, child] of node.entries) {
      lines.push(`${path}/${text} ${child.directory ? 'd' : 'f'}${child.nlink}`);
      if (child.directory) lines.push(...this.picture(child, `${path}/${text}`));
    }
    return lines.sort();
  }
}
