// Worker processes that write to a mount and note outside of it what was acknowledged: waiting until they press on it, and until
// they end.
import type { ChildProcess } from 'node:child_process';
import { statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { MountUnderTest, Pressure } from './mount-under-test.js';

const PRESSURE_MS_MAX = 60_000;
const HANG_MS_MAX = 60_000;
/** A hundred operations and more: whoever loses power before that has little to lose. */
const NOTED_BYTES_MIN = 4096;

/** What one worker writes, and where it notes it. */
export interface Place {
  readonly directory: string;
  readonly log: string;
}

/** Waits until the workers have something to lose. */
export async function noted(places: readonly Place[], workers: readonly ChildProcess[]): Promise<void> {
  const end = performance.now() + PRESSURE_MS_MAX;
  const bytes = () =>
    places.reduce((sum, { log }) => sum + (statSync(log, { throwIfNoEntry: false })?.size ?? 0), 0);
  while (bytes() < NOTED_BYTES_MIN && workers.some((worker) => worker.exitCode === null)) {
    if (performance.now() > end) throw new Error(`${bytes()} bytes noted in ${PRESSURE_MS_MAX} ms`);
    await sleep(10);
  }
}

/** Waits for dirty pages and an upload under way: a crash without them would prove nothing, and fails. */
export async function pressed(
  mount: MountUnderTest,
  workers: readonly ChildProcess[],
  pauseMs: number,
): Promise<Pressure> {
  const end = performance.now() + PRESSURE_MS_MAX;
  let pressure = await mount.pressure();
  while (pressure.dirtyBytes === 0 || pressure.inFlightBytes === 0) {
    if (workers.every((worker) => worker.exitCode !== null)) break;
    if (performance.now() > end)
      throw new Error(`no dirty pages and upload in ${PRESSURE_MS_MAX} ms: ${JSON.stringify(pressure)}`);
    await sleep(pauseMs);
    pressure = await mount.pressure();
  }
  return pressure;
}

/** The exit code, or the signal, of a process that has just been started. */
export function ended(worker: ChildProcess): Promise<number | string> {
  return new Promise((resolve) => worker.on('exit', (code, signal) => resolve(code ?? signal ?? 'unknown')));
}

/** Rejects when `work` has not settled in time: `what` hangs. */
export async function withWatchdog<T>(work: Promise<T>, what: string): Promise<T> {
  let watchdog: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    watchdog = setTimeout(() => reject(new Error(`${what}: ${HANG_MS_MAX} ms`)), HANG_MS_MAX);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(watchdog);
  }
}
