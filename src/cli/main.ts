#!/usr/bin/env -S node --max-semi-space-size=4
// The entry of the command line: gives run() the real world and takes its exit code. The flag bounds the young objects of
// a daemon to 8 MiB; by default they take up to 32 under load and keep them.
import { RuntimeDirectory } from '../daemon/runtime-directory.js';
import { systemClock } from '../telemetry/clock.js';
import { run } from './run.js';

// Whoever read may be gone (`| head`, a `tee` that Ctrl-C ended first): that is no fault, and ends no daemon. Who has to know
// listens by itself. What cannot be written for another reason (a full disk) is a failure.
let isUnwritten = false;
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') return;
  process.stderr.write(`penstock: standard output: ${error.message}\n`);
  isUnwritten = true;
  process.exitCode = 1;
});
process.stderr.on('error', () => undefined);

const exitCode = await run(process.argv.slice(2), {
  stdout: process.stdout,
  stderr: process.stderr,
  environment: process.env,
  directory: process.cwd(),
  clock: systemClock,
  entry: process.argv[1]!,
  async provider() {
    // Who needs volumes is a daemon, or ends soon.
    (await import('../gateway/malloc.js')).boundMalloc();
    return (await import('../daemon/volume-provider.js')).volumeProvider;
  },
  runtime: () => RuntimeDirectory.open(),
  writeBytes: (bytes) =>
    new Promise((taken, refused) => {
      process.stdout.write(bytes, (error) => (error ? refused(error) : taken()));
    }),
  onStopSignal(listener) {
    const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
    for (const signal of signals) process.on(signal, listener);
    process.stdout.on('error', listener);
    return () => {
      for (const signal of signals) process.off(signal, listener);
      process.stdout.off('error', listener);
    };
  },
});
process.exitCode = isUnwritten ? 1 : exitCode;
