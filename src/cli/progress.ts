// Progress of long work: a bar on standard error when that is a terminal, nothing otherwise.
import cliProgress from 'cli-progress';
import { formatSize } from '../daemon/size.js';
import type { Progress } from '../gateway/mount-contract.js';
import type { Context } from './context.js';

export interface ProgressBar {
  readonly onProgress: (progress: unknown) => void;
  /** Takes the bar away; safe to call more than once. */
  stop(): void;
}

export function progressBar(context: Context, label: string): ProgressBar {
  if (!context.stderr.isTTY) return { onProgress: () => undefined, stop: () => undefined };
  let unit: Progress['unit'] = 'bytes';
  const bar = new cliProgress.SingleBar({
    format: (options, { value, total, progress }) =>
      `${label} ${cliProgress.Format.BarFormat(progress, options)} ${amount(value, unit)} of ${amount(total, unit)}`,
    stream: context.stderr as NodeJS.WritableStream,
    barsize: 30,
    hideCursor: true,
    clearOnComplete: true,
  });
  let started = false;
  return {
    onProgress(progress) {
      const { done, total, unit: newUnit } = progress as Progress;
      unit = newUnit;
      if (!started) bar.start(total, done);
      started = true;
      bar.setTotal(total);
      bar.update(done);
    },
    stop() {
      if (started) bar.stop();
      started = false;
    },
  };
}

function amount(value: number, unit: Progress['unit']): string {
  return unit === 'bytes' ? formatSize(value) : `${value} ${unit}`;
}
