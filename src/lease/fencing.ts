// Fencing tokens (Kleppmann, "How to do distributed locking", 2016): each grant of a producer has a greater token than all before,
// and whoever guards the resource refuses what comes with a lesser one.
//
//   coordination   | ... reserved by A ... | ... reserved by B ... | next
//   agent                  ^ next   end ^        a block is durable before its first token is used
//
// An agent that comes to own a producer starts a fresh block, which lies above every token that any earlier owner could use.
import { LeaseError } from './errors.js';

export const TOKENS_PER_BLOCK = 1 << 16;

export class TokenBlock {
  #next = 0;
  #end = 0;
  #filling: Promise<void> | undefined;

  /** `reserve` answers the first of TOKENS_PER_BLOCK tokens, durably taken. */
  constructor(private readonly reserve: () => Promise<number>) {}

  /** The next token, or -1 when `fill` has to come first. */
  take(): number {
    if (this.#next === this.#end) return -1;
    this.#next += 1;
    return this.#next - 1;
  }

  /** What is left of the block lies below what a former owner may have used: a fresh one is needed. */
  discard(): void {
    this.#next = this.#end;
    this.#filling = undefined;
  }

  fill(): Promise<void> {
    if (this.#next < this.#end) return Promise.resolve();
    if (this.#filling !== undefined) return this.#filling;
    const filling: Promise<void> = this.reserve().then(
      (first) => {
        // A block that was asked for before `discard` may be too low.
        if (this.#filling !== filling) return;
        this.#filling = undefined;
        this.#next = first;
        this.#end = first + TOKENS_PER_BLOCK;
      },
      (error: unknown) => {
        if (this.#filling === filling) this.#filling = undefined;
        throw error;
      },
    );
    this.#filling = filling;
    return filling;
  }
}

/** For whoever guards a resource: lets a token pass unless a greater one was seen. Keep `highest` as durably as the resource. */
export class FencingGuard {
  #highest: number;

  constructor(highest = 0) {
    this.#highest = highest;
  }

  get highest(): number {
    return this.#highest;
  }

  /** Throws FENCED for a token of a holder that has been succeeded. */
  check(token: number): void {
    if (token < this.#highest) {
      throw new LeaseError(
        'FENCED',
        `fencing token ${token} is outdated: ${this.#highest} was used since; ask for a new lease`,
      );
    }
    this.#highest = token;
  }
}
