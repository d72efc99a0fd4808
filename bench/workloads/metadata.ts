// Operations on names, each over all files of one directory: create, create with 4 KiB, stat with the kernel's caches
// dropped and with them warm, rename, unlink.
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { command } from '../../test/support/command.js';
import { nativeProgram } from '../../test/support/native-tool.js';
import type { Figure, Workload } from './workload.js';

const WARM_UP = -1;

export const metadata: Workload = {
  name: 'metadata',
  /** A round that does not count: a mount lives for days, and V8 compiles what it has run often. */
  async prepare(peer, scale) {
    await metadata.run(peer, scale, WARM_UP);
  },
  async run(peer, { files }, round) {
    const tool = nativeProgram('file-operations', 'bench/tools');
    const directory = join(peer.path, `metadata-${round}`);
    mkdirSync(directory);
    const figures: Figure[] = [];
    const measure = async (kind: string, name: string) => {
      const seconds = Number(await command(tool, [kind, directory, String(files)], { timeoutMs: 180_000 }));
      figures.push({ name, unit: 'ops/s', value: files / seconds });
    };
    await measure('create', 'create');
    await measure('unlink', 'unlink');
    await measure('create-4k', 'create + write 4K + close');
    await peer.settle();
    if (dropKernelCaches()) await measure('stat', 'stat, cold');
    else await command(tool, ['stat', directory, String(files)]);
    await measure('stat', 'stat, warm');
    await measure('rename', 'rename');
    rmSync(directory, { recursive: true });
    return figures;
  },
};

/** Names and attributes only, not pages; needs root. */
function dropKernelCaches(): boolean {
  try {
    writeFileSync('/proc/sys/vm/drop_caches', '2');
    return true;
  } catch {
    // Not root: the figure is left out, and the table shows a dash for it.
    return false;
  }
}
