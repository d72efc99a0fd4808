// A vitest reporter whose last line is `N passed, N failed` (`, N skipped` where there are any): the plain form that
// scripts and continuous integration read. A run in which nothing passed is a failed run.
import type { Reporter, TestModule } from 'vitest/node';

export default class ClosingLine implements Reporter {
  onTestRunEnd(modules: ReadonlyArray<TestModule>, unhandledErrors: readonly unknown[]): void {
    const counts = { passed: 0, failed: 0, skipped: 0, pending: 0 };
    for (const module of modules) {
      if (module.state() === 'failed' && [...module.children.allTests('failed')].length === 0)
        counts.failed += 1;
      for (const test of module.children.allTests()) counts[test.result().state] += 1;
    }
    const failed = counts.failed + counts.pending + unhandledErrors.length;
    const skipped = counts.skipped > 0 ? `, ${counts.skipped} skipped` : '';
    process.on('exit', () => {
      if (counts.passed === 0 || failed > 0) process.exitCode = process.exitCode || 1;
      process.stdout.write(`\n${counts.passed} passed, ${failed} failed${skipped}\n`);
    });
  }
}
