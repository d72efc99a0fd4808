// A content manifest as a file: a JSON value a line, written as the entries come, so that it may be longer than memory.
//
//   {"penstock":"content manifest","format":1}
//   {"ino":4098,"version":3,"size":100,"path":"a/b","content":"6f5e..."}       one for each file that could be read
//   {"end":{"identity":"...","at":"2026-01-31T12:00:00.000Z","files":1,"sha256":"..."}}   sha256 of all lines before
//
// The last line says whether the file is whole and as it was written. It takes its name only when it is complete and synced.
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createReadStream, createWriteStream, renameSync, rmSync, type WriteStream } from 'node:fs';
import type { ContentEntry } from '../access/content-manifest.js';
import { Misuse } from './context.js';

const FORMAT = 1;
const HEADER = { penstock: 'content manifest', format: FORMAT };

export interface Manifest {
  /** Of the volume that it was taken of. */
  readonly identity: string;
  /** When, as an ISO 8601 time. */
  readonly at: string;
  readonly entries: ReadonlyMap<number, ContentEntry>;
}

interface End {
  readonly identity: string;
  readonly at: string;
  readonly files: number;
  readonly sha256: string;
}

/** Misuse: it cannot be read, is none, is of a newer format, is not whole or was changed. */
export async function readManifest(path: string): Promise<Manifest> {
  const refuse = (why: string): Misuse => new Misuse(`${path} ${why}`);
  const entries = new Map<number, ContentEntry>();
  const hash = createHash('sha256');
  let lines = 0;
  let end: End | undefined;
  try {
    for await (const text of linesOf(path)) {
      const line = parse(text);
      if (lines === 0 && line?.penstock !== HEADER.penstock) throw refuse('is no content manifest');
      if (lines === 0 && line?.format !== FORMAT)
        throw refuse(`has format ${line?.format}, this penstock knows ${FORMAT}; use a newer penstock`);
      if (line === undefined || end !== undefined) throw refuse('is damaged: save another one');
      if ('end' in line) end = line.end as End;
      else hash.update(`${text}\n`);
      if (lines > 0 && end === undefined) entries.set(line.ino as number, line as unknown as ContentEntry);
      lines += 1;
    }
  } catch (error) {
    if (error instanceof Misuse) throw error;
    throw refuse(`cannot be read: ${(error as Error).message}`);
  }
  if (end === undefined || end.files !== entries.size || end.sha256 !== hash.digest('hex'))
    throw refuse('is damaged or cut short: save another one');
  return { identity: end.identity, at: end.at, entries };
}

export class ManifestWriter implements AsyncDisposable {
  readonly #path: string;
  readonly #stream: WriteStream;
  readonly #hash = createHash('sha256');
  readonly #failed: Promise<never>;
  #files = 0;

  private constructor(path: string) {
    this.#path = path;
    this.#stream = createWriteStream(`${path}.new`, { mode: 0o600, flush: true });
    this.#failed = new Promise((_resolve, reject) => this.#stream.once('error', reject));
    this.#failed.catch(() => undefined); // Whoever waits for the stream hears of it.
  }

  static async create(path: string): Promise<ManifestWriter> {
    const writer = new ManifestWriter(path);
    await Promise.race([once(writer.#stream, 'open'), writer.#failed]);
    await writer.#write([JSON.stringify(HEADER)]);
    return writer;
  }

  /** Entries without a hash are left out. */
  async add(entries: readonly ContentEntry[]): Promise<void> {
    const known = entries.filter(({ content }) => typeof content === 'string');
    this.#files += known.length;
    await this.#write(known.map((entry) => JSON.stringify(entry)));
  }

  /** Puts the manifest in the place of one that was there before. */
  async finish(identity: string, at: Date): Promise<void> {
    const end: End = { identity, at: at.toISOString(), files: this.#files, sha256: this.#hash.digest('hex') };
    this.#stream.end(`${JSON.stringify({ end })}\n`);
    await Promise.race([once(this.#stream, 'close'), this.#failed]);
    renameSync(`${this.#path}.new`, this.#path);
  }

  /** Leaves nothing behind of a manifest that was not finished. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stream.destroy();
    rmSync(`${this.#path}.new`, { force: true });
  }

  async #write(lines: readonly string[]): Promise<void> {
    if (lines.length === 0) return;
    const text = `${lines.join('\n')}\n`;
    this.#hash.update(text);
    if (!this.#stream.write(text)) await Promise.race([once(this.#stream, 'drain'), this.#failed]);
  }
}

/** node:readline would not pass on that the file cannot be read. */
async function* linesOf(path: string): AsyncGenerator<string> {
  let rest = '';
  for await (const text of createReadStream(path, 'utf8') as AsyncIterable<string>) {
    const lines = `${rest}${text}`.split('\n');
    rest = lines.pop()!;
    yield* lines;
  }
  if (rest !== '') yield rest;
}

function parse(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
