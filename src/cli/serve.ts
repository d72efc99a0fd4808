// Runs a daemon in this process until it ends or is told to stop: what `up` and `mount --foreground` share.
import type { DaemonConfig } from '../daemon/config.js';
import { Daemon } from '../daemon/daemon.js';
import { createLogger } from '../telemetry/logger.js';
import type { Context } from './context.js';

/** One Ctrl-C may arrive twice: from the terminal, and passed on by npm. */
const SAME_SIGNAL_MS = 1000;

/** A second signal does not wait: what is unpublished is safe in the cache, and the next start clears the dead mount away. */
export async function serve(
  context: Context,
  config: DaemonConfig,
  onReady: (daemon: Daemon) => void,
): Promise<void> {
  const { stderr } = context;
  const logger = createLogger(
    config.log.file === undefined
      ? { ...config.log, write: (line) => void stderr.write(line), human: stderr.isTTY === true }
      : config.log,
  );
  const stop = new AbortController();
  let firstMs: number | undefined;
  const forget = context.onStopSignal(() => {
    const nowMs = context.clock.monotonicMs();
    if (firstMs !== undefined && nowMs - firstMs > SAME_SIGNAL_MS) process.exit(1);
    firstMs ??= nowMs;
    stop.abort();
  });
  try {
    const daemon = await Daemon.start(config, {
      provider: await context.provider(),
      logger,
      clock: context.clock,
      runtime: context.runtime(),
    });
    if (stop.signal.aborted) void daemon.stop();
    else {
      stop.signal.addEventListener('abort', () => void daemon.stop());
      onReady(daemon);
    }
    await daemon.ended;
  } finally {
    forget();
  }
}
