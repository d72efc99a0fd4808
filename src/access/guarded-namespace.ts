// A volume's namespace behind its session's gate. Every method says the same in the same shape: admitted at once, or after
// asking the service; then the request goes on unchanged. No proxies, and no closure on the fast way.
import type {
  AttributeChanges,
  Attributes,
  Caller,
  DirectoryEntry,
  IsOpen,
  Made,
  Name,
  Namespace,
  Publish,
  PublishResult,
  ReleasedStripe,
  Removed,
  RenamedIn,
  Stripe,
  VolumeStatistics,
  XattrMode,
} from '../metadata/contract.js';
import type { SessionGate } from './gate.js';

export class GuardedNamespace implements Namespace {
  readonly #gate: SessionGate;
  readonly #inner: Namespace;

  constructor(gate: SessionGate, inner: Namespace) {
    this.#gate = gate;
    this.#inner = inner;
  }

  lookup(caller: Caller, parent: number, name: Name): Promise<Attributes> {
    if (this.#gate.admits(caller)) return this.#inner.lookup(caller, parent, name);
    return this.#gate.pass(caller).then(() => this.#inner.lookup(caller, parent, name));
  }

  getAttributes(caller: Caller, ino: number): Promise<Attributes> {
    if (this.#gate.admits(caller)) return this.#inner.getAttributes(caller, ino);
    return this.#gate.pass(caller).then(() => this.#inner.getAttributes(caller, ino));
  }

  setAttributes(caller: Caller, ino: number, changes: AttributeChanges): Promise<Attributes> {
    if (this.#gate.admits(caller)) return this.#inner.setAttributes(caller, ino, changes);
    return this.#gate.pass(caller).then(() => this.#inner.setAttributes(caller, ino, changes));
  }

  makeNode(caller: Caller, parent: number, name: Name, mode: number, rdev: number): Promise<Made> {
    if (this.#gate.admits(caller)) return this.#inner.makeNode(caller, parent, name, mode, rdev);
    return this.#gate.pass(caller).then(() => this.#inner.makeNode(caller, parent, name, mode, rdev));
  }

  makeDirectory(caller: Caller, parent: number, name: Name, mode: number): Promise<Made> {
    if (this.#gate.admits(caller)) return this.#inner.makeDirectory(caller, parent, name, mode);
    return this.#gate.pass(caller).then(() => this.#inner.makeDirectory(caller, parent, name, mode));
  }

  makeSymlink(caller: Caller, parent: number, name: Name, target: Buffer): Promise<Made> {
    if (this.#gate.admits(caller)) return this.#inner.makeSymlink(caller, parent, name, target);
    return this.#gate.pass(caller).then(() => this.#inner.makeSymlink(caller, parent, name, target));
  }

  readSymlink(caller: Caller, ino: number): Promise<Buffer> {
    if (this.#gate.admits(caller)) return this.#inner.readSymlink(caller, ino);
    return this.#gate.pass(caller).then(() => this.#inner.readSymlink(caller, ino));
  }

  link(caller: Caller, ino: number, parent: number, name: Name): Promise<Made> {
    if (this.#gate.admits(caller)) return this.#inner.link(caller, ino, parent, name);
    return this.#gate.pass(caller).then(() => this.#inner.link(caller, ino, parent, name));
  }

  unlink(caller: Caller, parent: number, name: Name, isOpen: IsOpen): Promise<Removed> {
    if (this.#gate.admits(caller)) return this.#inner.unlink(caller, parent, name, isOpen);
    return this.#gate.pass(caller).then(() => this.#inner.unlink(caller, parent, name, isOpen));
  }

  removeDirectory(caller: Caller, parent: number, name: Name, isOpen: IsOpen): Promise<Removed> {
    if (this.#gate.admits(caller)) return this.#inner.removeDirectory(caller, parent, name, isOpen);
    return this.#gate.pass(caller).then(() => this.#inner.removeDirectory(caller, parent, name, isOpen));
  }

  rename(
    caller: Caller,
    parent: number,
    name: Name,
    newParent: number,
    newName: Name,
    flags: number,
    isOpen: IsOpen,
  ): Promise<RenamedIn> {
    if (this.#gate.admits(caller))
      return this.#inner.rename(caller, parent, name, newParent, newName, flags, isOpen);
    return this.#gate
      .pass(caller)
      .then(() => this.#inner.rename(caller, parent, name, newParent, newName, flags, isOpen));
  }

  releaseOrphans(caller: Caller, inos: readonly number[]): Promise<void> {
    if (this.#gate.admits(caller)) return this.#inner.releaseOrphans(caller, inos);
    return this.#gate.pass(caller).then(() => this.#inner.releaseOrphans(caller, inos));
  }

  readDirectory(
    caller: Caller,
    ino: number,
    cookie: bigint,
    limit: number,
    plus: boolean,
  ): Promise<DirectoryEntry[]> {
    if (this.#gate.admits(caller)) return this.#inner.readDirectory(caller, ino, cookie, limit, plus);
    return this.#gate.pass(caller).then(() => this.#inner.readDirectory(caller, ino, cookie, limit, plus));
  }

  parentOf(caller: Caller, ino: number): Promise<number> {
    if (this.#gate.admits(caller)) return this.#inner.parentOf(caller, ino);
    return this.#gate.pass(caller).then(() => this.#inner.parentOf(caller, ino));
  }

  getXattr(caller: Caller, ino: number, name: Name): Promise<Buffer> {
    if (this.#gate.admits(caller)) return this.#inner.getXattr(caller, ino, name);
    return this.#gate.pass(caller).then(() => this.#inner.getXattr(caller, ino, name));
  }

  setXattr(
    caller: Caller,
    ino: number,
    name: Name,
    value: Buffer,
    mode: XattrMode,
    clearSgid?: boolean,
  ): Promise<Attributes> {
    if (this.#gate.admits(caller)) return this.#inner.setXattr(caller, ino, name, value, mode, clearSgid);
    return this.#gate
      .pass(caller)
      .then(() => this.#inner.setXattr(caller, ino, name, value, mode, clearSgid));
  }

  listXattr(caller: Caller, ino: number): Promise<Name[]> {
    if (this.#gate.admits(caller)) return this.#inner.listXattr(caller, ino);
    return this.#gate.pass(caller).then(() => this.#inner.listXattr(caller, ino));
  }

  removeXattr(caller: Caller, ino: number, name: Name): Promise<Attributes> {
    if (this.#gate.admits(caller)) return this.#inner.removeXattr(caller, ino, name);
    return this.#gate.pass(caller).then(() => this.#inner.removeXattr(caller, ino, name));
  }

  statistics(caller: Caller): Promise<VolumeStatistics> {
    if (this.#gate.admits(caller)) return this.#inner.statistics(caller);
    return this.#gate.pass(caller).then(() => this.#inner.statistics(caller));
  }

  stripes(caller: Caller, ino: number, offset: number, length: number): Promise<Stripe[]> {
    if (this.#gate.admits(caller)) return this.#inner.stripes(caller, ino, offset, length);
    return this.#gate.pass(caller).then(() => this.#inner.stripes(caller, ino, offset, length));
  }

  publish(caller: Caller, batch: readonly Publish[]): Promise<PublishResult[]> {
    if (this.#gate.admits(caller)) return this.#inner.publish(caller, batch);
    return this.#gate.pass(caller).then(() => this.#inner.publish(caller, batch));
  }

  allocateStripeIds(caller: Caller, count: number): Promise<number> {
    if (this.#gate.admits(caller)) return this.#inner.allocateStripeIds(caller, count);
    return this.#gate.pass(caller).then(() => this.#inner.allocateStripeIds(caller, count));
  }

  reservePages(caller: Caller, pages: number): Promise<number> {
    if (this.#gate.admits(caller)) return this.#inner.reservePages(caller, pages);
    return this.#gate.pass(caller).then(() => this.#inner.reservePages(caller, pages));
  }

  returnReservation(caller: Caller, pages: number): Promise<void> {
    if (this.#gate.admits(caller)) return this.#inner.returnReservation(caller, pages);
    return this.#gate.pass(caller).then(() => this.#inner.returnReservation(caller, pages));
  }

  takeReleased(limit: number): Promise<ReleasedStripe[]> {
    if (this.#gate.isOpen()) return this.#inner.takeReleased(limit);
    return this.#gate.pass().then(() => this.#inner.takeReleased(limit));
  }

  confirmReleased(released: readonly ReleasedStripe[]): Promise<void> {
    if (this.#gate.isOpen()) return this.#inner.confirmReleased(released);
    return this.#gate.pass().then(() => this.#inner.confirmReleased(released));
  }

  sync(): Promise<void> {
    if (this.#gate.isOpen()) return this.#inner.sync();
    return this.#gate.pass().then(() => this.#inner.sync());
  }
}
