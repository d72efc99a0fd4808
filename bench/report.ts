// Medians and ratios of a run, as a table for people and as JSON for scripts.
export interface Measurement {
  readonly figure: string;
  readonly unit: string;
  readonly peer: string;
  readonly values: readonly number[];
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length / 2;
  return sorted.length % 2 === 1 ? sorted[Math.floor(middle)]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** One row a figure, one column a peer: the median, and in brackets what `subject` reaches of it. */
export function table(
  measurements: readonly Measurement[],
  peers: readonly string[],
  subject: string,
): string {
  const figures = [...new Set(measurements.map(({ figure }) => figure))];
  const rows = figures.map((figure) => {
    const of = (peer: string) => measurements.find((one) => one.figure === figure && one.peer === peer);
    const own = of(subject);
    const cells = peers.map((peer) => {
      const found = of(peer);
      if (!found) return '-';
      const value = median(found.values);
      const ratio = own && peer !== subject ? ` (${(median(own.values) / value).toFixed(2)}x)` : '';
      return `${value >= 100 ? value.toFixed(0) : value.toFixed(1)}${ratio}`;
    });
    const unit = measurements.find((one) => one.figure === figure)?.unit ?? '';
    return [`${figure} [${unit}]`, ...cells];
  });
  const all = [['', ...peers], ...rows];
  const widths = all[0]!.map((_, column) => Math.max(...all.map((row) => row[column]!.length)));
  return all
    .map((row) =>
      row
        .map((cell, column) => (column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!)))
        .join('  '),
    )
    .join('\n');
}
