// A MemoryFs mounted by the fuse-native transport on a directory of its own. Programs run in child processes: a
// synchronous call from this one into the mount would wait for itself.
import { execFile } from 'node:child_process';
import { mkdtemp, rmdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { FileData } from '../../src/gateway/transport.js';
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

/** The attributes of a MemoryFs do not follow its data by themselves: the native transport does that, and so does this. */
function fileData(fs: MemoryFs): FileData {
  return {
    read: async (_context, ino, offset, target) => moved(fs.data.read(ino, offset, target)),
    write: async (_context, ino, offset, data) => moved(fs.data.write(ino, offset, data)),
  };
}

export async function mountWithFuseNative(mountOptions: readonly string[] = []): Promise<FuseNativeMount> {
  const path = await mkdtemp(join(tmpdir(), 'penstock-fuse-native-'));
  const fs = new MemoryFs({ timeoutMs: 0 });
  const transport = await FuseNativeTransport.mount({
    mountpoint: path,
    operations: fs,
    data: fileData(fs),
    mountOptions,
  }).catch(async (error: unknown) => {
    await rmdir(path);
    throw error;
  });
  const inside = { cwd: path, timeout: 50_000, maxBuffer: 1 << 24 };
  return {
    fs,
    transport,
    path,
    shell: async (script) => (await run('sh', ['-ec', script], inside)).stdout.trim(),
    python: async (program) => (await run('python3', ['-c', program], inside)).stdout.trim(),
    [Symbol.asyncDispose]: async () => {
      await transport[Symbol.asyncDispose]();
      await rmdir(path);
    },
  };
}
