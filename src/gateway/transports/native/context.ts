// One request in JavaScript's hands. The abort signal is made only when somebody asks for it: most requests are
// answered before an interrupt could arrive, and an AbortController is the most expensive thing about them.
import type { RequestContext } from '../../transport.js';

export class UpcallContext implements RequestContext {
  readonly slot: number;
  readonly ino: number;
  readonly uid: number;
  readonly gid: number;
  readonly pid: number;
  readonly groups: readonly number[];
  #controller: AbortController | undefined;
  #interrupted = false;

  constructor(slot: number, ino: number, uid: number, gid: number, pid: number, groups: readonly number[]) {
    this.slot = slot;
    this.ino = ino;
    this.uid = uid;
    this.gid = gid;
    this.pid = pid;
    this.groups = groups;
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#interrupted) this.#controller.abort();
    }
    return this.#controller.signal;
  }

  interrupt(): void {
    this.#interrupted = true;
    this.#controller?.abort();
  }
}
