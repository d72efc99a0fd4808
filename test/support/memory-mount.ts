// A MemoryFs mounted by the native transport on a directory of its own, for tests: always taken away again, whatever
// happened in between. Only asynchronous calls may touch the mount from this process: a synchronous one would wait for the
// very thread that has to answer it.
import { execFile } from 'node:child_process';
import { mkdtemp, rmdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import {
  NativeFuseTransport,
  type NativeMountOptions,
} from '../../src/gateway/transports/native/transport.js';
import { MemoryFs, type MemoryFsOptions } from './memory-fs.js';

const run = promisify(execFile);

export interface MemoryMount extends AsyncDisposable {
  readonly fs: MemoryFs;
  readonly transport: NativeFuseTransport;
  readonly path: string;
  /** Faults the transport reported; a test that expects none looks here. */
  readonly faults: unknown[];
  /** Runs a Python program inside the mount and answers what it printed. */
  python(program: string): Promise<string>;
  shell(script: string): Promise<string>;
}

export async function mountMemoryFs(
  fsOptions: MemoryFsOptions = {},
  mountOptions: Partial<NativeMountOptions> = {},
): Promise<MemoryMount> {
  const path = await mkdtemp(join(tmpdir(), 'penstock-fuse-'));
  const fs = new MemoryFs(fsOptions);
  const faults: unknown[] = [];
  const transport = await NativeFuseTransport.mount({
    mountpoint: path,
    operations: fs,
    dataNeeds: fs.dataNeeds,
    fileIo: fs.data.fileIo(),
    onFault: (error) => faults.push(error),
    ioUring: process.env.PENSTOCK_TEST_IO_URING === 'on' ? 'on' : 'off',
    ...mountOptions,
  }).catch(async (error: unknown) => {
    await rmdir(path);
    throw error;
  });
  // Not `cwd: path`: spawn waits, on this thread, until the child has changed into it.
  const inside = { env: { ...process.env, MOUNT: path }, timeout: 50_000, maxBuffer: 1 << 24 };
  const enter = "import os; os.chdir(os.environ['MOUNT'])\n";
  return {
    fs,
    transport,
    path,
    faults,
    python: async (program) => (await run('python3', ['-c', enter + program], inside)).stdout.trim(),
    shell: async (script) => (await run('sh', ['-ec', `cd "$MOUNT"; ${script}`], inside)).stdout.trim(),
    [Symbol.asyncDispose]: async () => {
      await transport[Symbol.asyncDispose]();
      await rmdir(path);
    },
  };
}
