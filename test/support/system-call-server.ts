// One running system-call server (test/native-tools/fsop.h) on one root, with a watchdog on every answer: a file system
// that hangs fails the test and names the operation, instead of hanging the tests too.
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { nativeTool } from './native-tool.js';

/** Built when the file is loaded: a compiler has more time than a test. */
const FSOP = nativeTool('fsop');

export class SystemCallServer implements Disposable {
  readonly #process: ChildProcessWithoutNullStreams;
  #answers: string[] = [];
  #partial = '';
  #exit: string | undefined;
  #stderr = '';
  #wake: () => void = () => {};

  /** `plant` names a fault for the server to commit, in tests of the tests. */
  constructor(
    readonly root: string,
    plant = '',
  ) {
    const env = plant ? { ...process.env, PLANT: plant } : process.env;
    this.#process = spawn(FSOP, [root], { stdio: 'pipe', env });
    this.#process.stdout.setEncoding('latin1').on('data', (text: string) => {
      const lines = (this.#partial + text).split('\n');
      this.#partial = lines.pop() ?? '';
      this.#answers.push(...lines);
      this.#wake();
    });
    this.#process.stderr.on('data', (text) => {
      this.#stderr += text;
    });
    this.#process.stdin.on('error', () => {});
    this.#process.on('exit', (code, signal) => {
      this.#exit = `the system-call server ended (${signal ?? code}) ${this.#stderr}`;
      this.#wake();
    });
  }

  /** Performs the operations in order and answers one line for each. `idleMs`: the longest a single one may take. */
  async run(lines: readonly string[], idleMs = 30_000): Promise<string[]> {
    this.#answers = [];
    this.#process.stdin.write(lines.map((line) => `${line}\n`).join(''));
    for (;;) {
      const before = this.#answers.length;
      if (before >= lines.length) return this.#answers.slice(0, lines.length);
      if (this.#exit) throw new Error(`${this.#exit}, at operation ${before}: ${lines[before]}`);
      const woken = await new Promise<boolean>((resolve) => {
        const watchdog = setTimeout(() => resolve(false), idleMs);
        this.#wake = () => {
          clearTimeout(watchdog);
          resolve(true);
        };
      });
      if (!woken && this.#answers.length === before) {
        this.#process.kill('SIGKILL');
        throw new Error(
          `hang: no answer in ${idleMs} ms at operation ${before}: ${lines[before]} (${this.root})`,
        );
      }
    }
  }

  /** What this file system can do, from a fixed list of optional operations. */
  async features(): Promise<Set<string>> {
    const [answer = ''] = await this.run(['probe']);
    if (!answer.startsWith('ok')) throw new Error(`${this.root}: probing failed: ${answer}`);
    return new Set(answer.slice(3).split(',').filter(Boolean));
  }

  [Symbol.dispose](): void {
    this.#process.kill('SIGKILL');
  }
}
