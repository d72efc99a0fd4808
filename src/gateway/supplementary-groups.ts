// The supplementary groups of a process: FUSE requests carry the primary one alone.
import { readFile } from 'node:fs/promises';

/** `pid`: of a process or thread, in our namespace. Undefined when that cannot be known, as of one in a namespace above ours. */
export async function supplementaryGroups(pid: number): Promise<readonly number[] | undefined> {
  if (pid <= 0) return undefined;
  try {
    const line = /^Groups:(.*)$/m.exec(await readFile(`/proc/${pid}/status`, 'latin1'))?.[1];
    return line?.split(/\s+/).filter(Boolean).map(Number);
  } catch {
    return undefined; // It has ended, or /proc is not there.
  }
}
