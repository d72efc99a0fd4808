// Who else has a mount: unmounting takes it out of one mount namespace, and the file system lives for as long as another
// (a container, a service with a private /tmp, `ip netns exec`) has a copy of it.
import { readdir, readFile, readlink } from 'node:fs/promises';

export interface MountHolder {
  readonly pid: number;
  readonly command: string;
}

/**
 * One process of each mount namespace that has a mount of `device` ("major:minor", as in mountinfo(5)). What may not be read is left
 * out: without root that is every other user's process.
 */
export async function holdersOf(device: string): Promise<MountHolder[]> {
  const holders = new Map<string, MountHolder>();
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const namespace = await readlink(`/proc/${name}/ns/mnt`);
      if (holders.has(namespace)) continue;
      const table = await readFile(`/proc/${name}/mountinfo`, 'utf8');
      if (!table.split('\n').some((line) => line.split(' ')[2] === device)) continue;
      const command = (await readFile(`/proc/${name}/comm`, 'utf8')).trim();
      holders.set(namespace, { pid: Number(name), command });
    } catch (error) {
      // It ended meanwhile, or is not ours to look at.
      const { code = '' } = error as NodeJS.ErrnoException;
      if (!['ENOENT', 'ESRCH', 'EACCES', 'EPERM', 'EINVAL'].includes(code)) throw error;
    }
  }
  return [...holders.values()];
}
