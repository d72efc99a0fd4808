// A MemoryFs mounted by the fuse-native transport on a directory of its own. Programs run in child processes: a
// synchronous call from this one into the mount would wait for itself.
import { execFile } from 'node:child_process';
import { constants } from 'node:fs';
import { mkdtemp, rmdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Entry, FileData, MissingEntry, RequestContext } from '../../src/gateway/transport.js';
import { FuseNativeTransport } from '../../src/gateway/transports/fuse-native/transport.js';
import { MemoryFs } from './memory-fs.js';

const run = promisify(execFile);

export interface FuseNativeMount extends AsyncDisposable {
  readonly fs: MemoryFs;
  readonly transport: FuseNativeTransport;
  readonly path: string;
  shell(script: string): Promise<string>;
  python(program: string): Promise<string>;
}

/** Bytes, or the error that a negative answer stands for. */
function moved(result: number): number {
  if (result < 0) throw Object.assign(new Error(`the data is refused: ${result}`), { code: 'EIO' });
  return result;
}

/** The attributes of a MemoryFs do not follow its data by themselves: the native transport's cache does that there. */
class SizedMemoryFs extends MemoryFs {
  override async lookup(
    context: RequestContext,
    parent: number,
    name: Buffer,
  ): Promise<Entry | MissingEntry> {
    const entry = await super.lookup(context, parent, name);
    return 'attributes' in entry ? this.#sized(entry) : entry;
  }

  override async getAttributes(context: RequestContext, ino: number): Promise<Entry> {
    return this.#sized(await super.getAttributes(context, ino));
  }

  #sized(entry: Entry): Entry {
    const { ino, mode } = entry.attributes;
    if ((mode & constants.S_IFMT) !== constants.S_IFREG) return entry;
    return {
      ...entry,
      attributes: { ...entry.attributes, size: this.data.size(ino), pages: this.data.pages(ino) },
    };
  }
}

const fileData = (fs: MemoryFs): FileData => ({
  read: async (_context, ino, offset, target) => moved(fs.data.read(ino, offset, target)),
  write: async (_context, ino, offset, data) => moved(fs.data.write(ino, offset, data)),
});

export async function mountWithFuseNative(mountOptions: readonly string[] = []): Promise<FuseNativeMount> {
  const path = await mkdtemp(join(tmpdir(), 'penstock-fuse-native-'));
  const fs = new SizedMemoryFs({ timeoutMs: 0 });
  const transport = await FuseNativeTransport.mount({
    mountpoint: path,
    operations: fs,
    data: fileData(fs),
    mountOptions,
  }).catch(async (error: unknown) => {
    await rmdir(path);
    throw error;
  });
  // Not with `cwd`: this process waits for its child to have entered the directory, and would have to answer for it.
  const limits = { cwd: '/', timeout: 50_000, maxBuffer: 1 << 24 };
  const enter = 'cd "$1" && shift && exec "$@"';
  const inside = async (...command: string[]) => {
    const { stdout } = await run('sh', ['-c', enter, 'sh', path, ...command], limits);
    return stdout.trim();
  };
  return {
    fs,
    transport,
    path,
    shell: (script) => inside('sh', '-ec', script),
    python: (program) => inside('python3', '-c', program),
    [Symbol.asyncDispose]: async () => {
      await transport[Symbol.asyncDispose]();
      await rmdir(path);
    },
  };
}
