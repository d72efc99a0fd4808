// Mounts a volume from a script, uses it as the file system that it is, publishes everything and takes it down.
//
//   node dist/examples/mount-and-use.js
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { formatStore, mount } from 'penstock';

const directory = await mkdtemp(join(tmpdir(), 'penstock-example-'));
const store = `file:${directory}/store`;
const mountpoint = join(directory, 'mnt');
await mkdir(mountpoint);
await formatStore({ store, volume: 'example' });

const volume = await mount({
  store,
  volume: 'example',
  mountpoint,
  cacheDirectory: join(directory, 'cache'),
});
try {
  await mkdir(join(mountpoint, 'notes'));
  await writeFile(join(mountpoint, 'notes/today.txt'), 'water the plants\n');
  console.log(await readdir(mountpoint, { recursive: true }));
  console.log((await readFile(join(mountpoint, 'notes/today.txt'), 'utf8')).trim());

  const { publishedFiles } = await volume.drain(() => {}, new AbortController().signal);
  const { cache } = await volume.status();
  console.log(`published ${publishedFiles} file, ${cache.dirtyBytes} bytes are dirty`);
} finally {
  await volume.unmount({ drain: true });
  await rm(directory, { recursive: true });
}
