// The tables of docs/planted-faults.md. `node dist/test/planted-faults/table.js` prints them when the list has changed.
import { argv } from 'node:process';
import { fileURLToPath } from 'node:url';
import { isNative, type NativeTest, type PlantedFault, type VitestTest } from './fault.js';
import { LAYERS } from './faults.js';

const testOf = (test: NativeTest | VitestTest): string =>
  isNative(test) ? `${test.binary}: ${test.testCase}` : `${test.file.slice('test/'.length)}: ${test.title}`;

const rowOf = ({ name, breaks, caughtBy }: PlantedFault): string[] => [
  `\`${name}\``,
  breaks,
  testOf(caughtBy),
];

function tableOf(faults: readonly PlantedFault[]): string {
  const rows = [['fault', 'invariant that it breaks', 'test that fails'], ...faults.map(rowOf)];
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  const [head, ...body] = rows.map((row) => line(row.map((cell, column) => cell.padEnd(widths[column]!))));
  return [head, line(widths.map((width) => '-'.repeat(width))), ...body].join('\n');
}

export function documented(): string {
  return Object.entries(LAYERS)
    .map(([layer, faults]) => `## ${layer}\n\n${tableOf(faults)}\n`)
    .join('\n');
}

if (argv[1] === fileURLToPath(import.meta.url)) process.stdout.write(documented());
