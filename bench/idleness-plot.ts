// Processor time against p99 latency as an SVG: one colour a way of waiting, one shape a kind of traffic, both axes
// logarithmic. Down and left is better.
import type { IdlenessRow } from './idleness.js';

const WIDTH = 760;
const HEIGHT = 480;
const LEFT = 70;
const BOTTOM = 430;
const TOP = 30;
const RIGHT = 560;

const COLOURS: Record<IdlenessRow['mode'], string> = {
  spin: '#c0392b',
  block: '#2471a3',
  nap: '#7d8285',
  adaptive: '#1e8449',
};

function axis(values: readonly number[], from: number, to: number): (value: number) => number {
  const low = Math.log10(Math.min(...values)) - 0.1;
  const high = Math.log10(Math.max(...values)) + 0.1;
  return (value) => from + ((Math.log10(value) - low) / (high - low)) * (to - from);
}

function decades(values: readonly number[]): number[] {
  const first = Math.ceil(Math.log10(Math.min(...values)) - 0.1);
  const last = Math.floor(Math.log10(Math.max(...values)) + 0.1);
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => 10 ** (first + i));
}

/** Rows without packets have no latency and are left out. */
export function idlenessPlot(rows: readonly IdlenessRow[]): string {
  const drawn = rows.filter((row) => row.p99_us > 0 && row.cpu > 0);
  const traffics = [...new Set(drawn.map((row) => row.traffic))];
  const x = axis(
    drawn.map((row) => row.p99_us),
    LEFT,
    RIGHT,
  );
  const y = axis(
    drawn.map((row) => 100 * row.cpu),
    BOTTOM,
    TOP,
  );
  const text = (left: number, top: number, label: string, more = '') =>
    `<text x="${left.toFixed(1)}" y="${top.toFixed(1)}" font-size="12" font-family="sans-serif" ${more}>${label}</text>`;
  const mark = (left: number, top: number, traffic: string, colour: string) =>
    `<circle cx="${left.toFixed(1)}" cy="${top.toFixed(1)}" r="9" fill="${colour}"/>${text(left, top + 4, String(traffics.indexOf(traffic) + 1), 'text-anchor="middle" fill="white"')}`;
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${HEIGHT}" viewBox="0 0 ${WIDTH} ${HEIGHT}">`,
    '<title>Processor time against p99 latency, by way of waiting and kind of traffic</title>',
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="white"/>`,
    `<path d="M${LEFT} ${TOP}V${BOTTOM}H${RIGHT}" fill="none" stroke="black"/>`,
    text(LEFT, TOP - 10, 'processor time of the receiver, % of one CPU'),
    text((LEFT + RIGHT) / 2, BOTTOM + 38, 'p99 from send to stage, us', 'text-anchor="middle"'),
  ];
  for (const value of decades(drawn.map((row) => row.p99_us)))
    parts.push(text(x(value), BOTTOM + 18, String(value), 'text-anchor="middle"'));
  for (const value of decades(drawn.map((row) => 100 * row.cpu)))
    parts.push(text(LEFT - 8, y(value) + 4, String(Number(value.toPrecision(1))), 'text-anchor="end"'));
  for (const row of drawn) parts.push(mark(x(row.p99_us), y(100 * row.cpu), row.traffic, COLOURS[row.mode]));
  let top = TOP + 10;
  for (const [mode, colour] of Object.entries(COLOURS)) {
    parts.push(`<rect x="${RIGHT + 30}" y="${top - 10}" width="12" height="12" fill="${colour}"/>`);
    parts.push(text(RIGHT + 50, top, mode));
    top += 22;
  }
  for (const traffic of traffics) {
    parts.push(mark(RIGHT + 36, top + 6, traffic, 'black'), text(RIGHT + 52, top + 10, traffic));
    top += 24;
  }
  return `${parts.join('\n')}\n</svg>\n`;
}
