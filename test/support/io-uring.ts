// The switch of FUSE over io_uring: a parameter of the fuse module, for all mounts of the machine. Whoever needs it on says
// so with a file of its own; the last one puts the switch back as the first one found it. A mount takes io_uring only if it
// asks for it, so that others do not notice.
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const SWITCH = '/sys/module/fuse/parameters/enable_uring';
const USERS = join(tmpdir(), 'penstock-enable-uring');

/** Why io_uring cannot be tested here; undefined when it can. */
export function ioUringUnavailable(): string | undefined {
  if (!existsSync(SWITCH)) return 'the kernel has no FUSE over io_uring (Linux 6.14)';
  if (!isIoUringOn() && process.geteuid?.() !== 0) return `${SWITCH} is off and only root can switch it on`;
  return undefined;
}

export function isIoUringOn(): boolean {
  return existsSync(SWITCH) && readFileSync(SWITCH, 'utf8').trim() === 'Y';
}

/** Switches it on, and answers how to undo that, which also happens at the end of the process. */
export function enableIoUring(): () => void {
  const own = join(USERS, String(process.pid));
  mkdirSync(USERS, { recursive: true });
  const before = liveUsers()[0]?.before ?? (isIoUringOn() ? 'Y' : 'N');
  writeFileSync(own, before);
  if (!isIoUringOn()) writeFileSync(SWITCH, 'Y');
  const undo = () => {
    process.off('exit', undo);
    rmSync(own, { force: true });
    if (liveUsers().length === 0 && before === 'N' && isIoUringOn()) writeFileSync(SWITCH, 'N');
  };
  process.once('exit', undo);
  return undo;
}

function liveUsers(): { readonly before: string }[] {
  return readdirSync(USERS).flatMap((pid) => {
    if (existsSync(`/proc/${pid}`)) return [{ before: readFileSync(join(USERS, pid), 'utf8') }];
    rmSync(join(USERS, pid), { force: true });
    return [];
  });
}
