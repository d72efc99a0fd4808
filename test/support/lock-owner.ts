// A process that owns file locks (test/native-tools/lock_owner.cc), and the kernel's own list of them.
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { nativeTool } from './native-tool.js';

/** Built when the file is loaded: a compiler has more time than a test. */
const LOCK_OWNER = nativeTool('lock_owner');

export class LockOwner implements Disposable {
  readonly #process: ChildProcessWithoutNullStreams;
  readonly #answers: AsyncIterator<string>;

  constructor() {
    this.#process = spawn(LOCK_OWNER, { stdio: 'pipe' });
    this.#answers = createInterface(this.#process.stdout)[Symbol.asyncIterator]();
  }

  get pid(): number {
    return this.#process.pid!;
  }

  /** One command, one answer; a command that blocks answers when it is done. */
  async ask(command: string): Promise<string> {
    this.#process.stdin.write(`${command}\n`);
    const { value, done } = await this.#answers.next();
    if (done) throw new Error(`the lock owner ended at: ${command}`);
    return value;
  }

  [Symbol.dispose](): void {
    this.#process.kill('SIGKILL');
  }
}

/** Whether the process waits for a lock. */
export function isWaiting(pid: number): boolean {
  const waiter = new RegExp(`^\\d+: -> POSIX +ADVISORY +WRITE ${pid} `, 'm');
  return waiter.test(readFileSync('/proc/locks', 'utf8'));
}

/** "<flavour> <kind> <pid> <start> <end>" of every lock held on the inode, sorted; end is EOF or a number. */
export function kernelLocks(ino: string): string[] {
  // 1: POSIX  ADVISORY  WRITE 3568 fd:00:2531452 0 EOF      ("1: -> POSIX ..." is a waiter)
  const held = /^\d+: (POSIX|FLOCK|OFDLCK)\s+ADVISORY\s+(READ|WRITE) (-?\d+) \S+:(\d+) (\d+) (\w+)$/;
  return readFileSync('/proc/locks', 'utf8')
    .split('\n')
    .map((line) => held.exec(line))
    .filter((match) => match !== null && match[4] === ino)
    .map(
      (match) =>
        `${match![1]!.toLowerCase()} ${match![2]!.toLowerCase()} ${match![3]} ${match![5]} ${match![6]}`,
    )
    .sort();
}
