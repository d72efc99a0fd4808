import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    reporters: ['default', './test/support/closing-line.ts'],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // What comes true on a busy machine, too: whoever waits for nothing in particular says how long.
    expect: { poll: { timeout: 30_000 } },
    globalSetup: ['./test/support/prebuild.ts'],
    pool: 'forks',
    maxWorkers: 2,
  },
});
