import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    reporters: ['default', './test/support/closing-line.ts'],
    // For a machine that has ten other things to do; what is right takes seconds on a quiet one.
    testTimeout: 180_000,
    hookTimeout: 180_000,
    expect: { poll: { timeout: 30_000 } },
    globalSetup: ['./test/support/prebuild.ts'],
    pool: 'forks',
    maxWorkers: 2,
  },
});
