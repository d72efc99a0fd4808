// A claim says that a living process has something for itself: a store, a mountpoint. It is a file that is linked into place
// complete, so that of two claimants exactly one wins, and that a dead holder's successor may replace.
//
// A process is named by its id and its start time, because ids come round again.
import { linkSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';

export interface ProcessIdentity {
  readonly pid: number;
  /** Clock ticks between boot and the start of the process: field 22 of /proc/<pid>/stat. */
  readonly startTicks: number;
}

export interface Holder extends ProcessIdentity {
  readonly socket: string;
  readonly store: string;
  readonly volume?: string;
  readonly mountpoint?: string;
}

export function thisProcess(): ProcessIdentity {
  return { pid: process.pid, startTicks: startTicks(process.pid)! };
}

export function isAlive(identity: ProcessIdentity): boolean {
  return startTicks(identity.pid) === identity.startTicks;
}

/** Undefined when there is no such process, or only its remains (a zombie). */
function startTicks(pid: number): number | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ESRCH') return undefined;
    throw error;
  }
  // The command's name is in parentheses and may hold anything; fields are counted after it.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields[0] === 'Z' || fields[0] === 'X' ? undefined : Number(fields[19]);
}

export function readClaim(path: string): Holder | undefined {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as Holder;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

const ATTEMPTS_MAX = 10;

/** Takes the claim for `holder`, or answers the living process that has it. */
export function takeClaim(path: string, holder: Holder): Holder | undefined {
  const scratch = mkdtempSync(join(dirname(path), '.claim-'));
  try {
    const complete = join(scratch, 'new');
    writeFileSync(complete, `${JSON.stringify(holder)}\n`);
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt += 1) {
      if (linkOnce(complete, path)) return undefined;
      const other = readClaim(path);
      if (other === undefined) continue;
      if (isAlive(other)) return other;
      const winner = setAside(path, join(scratch, `dead-${attempt}`));
      if (winner !== undefined) return winner;
    }
  } finally {
    rmSync(scratch, { recursive: true });
  }
  throw new Error(
    `${path}: the claim changed hands ${ATTEMPTS_MAX} times; is something restarting in a loop?`,
  );
}

function linkOnce(complete: string, path: string): boolean {
  try {
    linkSync(complete, path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

/** Moves a dead claim away. Another claimant may have replaced it in between: then that one's goes back to its place. */
function setAside(path: string, aside: string): Holder | undefined {
  try {
    renameSync(path, aside);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  const moved = readClaim(aside);
  if (moved === undefined || !isAlive(moved)) return undefined;
  linkOnce(aside, path);
  return moved;
}

/** Gives up a claim that this process has; anybody else's is left alone. */
export function dropClaim(path: string): void {
  const holder = readClaim(path);
  if (holder?.pid === process.pid) rmSync(path, { force: true });
}

/** Every claim in a directory whose holder lives. */
export function livingClaims(directory: string): Holder[] {
  return readdirSync(directory)
    .filter((name) => name.endsWith('.json') && !basename(name).startsWith('.'))
    .map((name) => readClaim(join(directory, name)))
    .filter((holder) => holder !== undefined)
    .filter(isAlive);
}
