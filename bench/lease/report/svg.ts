// Two forms of plot as SVG text: lines over a number, and dots with intervals over names. d3-scale places ticks and maps values
// to pixels, d3-shape writes paths; there is no document object model and no browser. Light and dark pages both show it: the
// drawing has its own white ground.
import { type Scale, scaleLinear, scaleLog } from 'd3-scale';
import { area, line } from 'd3-shape';

export interface Axis {
  readonly title: string;
  readonly log?: boolean;
  /** Default: from the first tick to the last, else what the data needs. */
  readonly domain?: readonly [number, number];
  /** Default: chosen by the scale. */
  readonly ticks?: readonly number[];
}

export interface Point {
  readonly x: number;
  readonly y: number;
  /** Half of the interval's width. */
  readonly half: number;
}

export interface Series {
  readonly name: string;
  readonly colour: string;
  readonly points: readonly Point[];
}

export interface DotRow {
  readonly label: string;
  readonly dots: ReadonlyArray<{
    readonly series: string;
    readonly value: number;
    readonly low: number;
    readonly high: number;
  }>;
}

const WIDTH = 820;
/** From one dot of a row, and from one line of the legend, to the next. */
const DOT_STEP = 7;
const LEGEND_STEP = 20;
const LEGEND = 190;
const FONT = 'font-family="system-ui, sans-serif" font-size="12"';

export function lineChart(title: string, x: Axis, y: Axis, series: readonly Series[]): string {
  const height = 420;
  const box = { left: 64, right: WIDTH - LEGEND, top: 40, bottom: height - 48 };
  const points = series.flatMap((each) => each.points);
  const xScale = scaleFor(
    x,
    points.map((point) => point.x),
    [box.left, box.right],
  );
  const yScale = scaleFor(
    y,
    points.flatMap(({ y: value, half }) => [value, value + half]),
    [box.bottom, box.top],
  );
  const floor = yScale.domain_[0]!;
  const drawn = series.map(({ colour, points: own }) => {
    const band = area<Point>()
      .x((point) => xScale(point.x))
      .y0((point) => yScale(Math.max(floor, point.y - point.half)))
      .y1((point) => yScale(point.y + point.half));
    const path = line<Point>()
      .x((point) => xScale(point.x))
      .y((point) => yScale(point.y));
    const dots = own.map(
      (p) => `<circle cx="${fixed(xScale(p.x))}" cy="${fixed(yScale(p.y))}" r="2.5" fill="${colour}"/>`,
    );
    return `<path d="${band(own)}" fill="${colour}" opacity="0.15"/><path d="${path(own)}" fill="none" stroke="${colour}" stroke-width="1.8"/>${dots.join('')}`;
  });
  return document(title, height, [
    grid(xScale, x, box, 'x'),
    grid(yScale, y, box, 'y'),
    ...drawn,
    legend(series, box.right + 16, box.top + 8),
  ]);
}

/** One line of dots a row; `colours` by series, in the order of the legend. `reference`: a vertical line. */
export function dotChart(
  title: string,
  x: Axis,
  rows: readonly DotRow[],
  colours: ReadonlyMap<string, string>,
  reference?: number,
): string {
  const rowHeight = Math.max(26, DOT_STEP * Math.max(...rows.map(({ dots }) => dots.length)) + 14);
  const height = 88 + Math.max(rows.length * rowHeight, colours.size * LEGEND_STEP - 20);
  const box = { left: 210, right: WIDTH - LEGEND, top: 40, bottom: height - 48 };
  const values = rows.flatMap((row) => row.dots.flatMap(({ low, high }) => [low, high]));
  const scale = scaleFor(x, values, [box.left, box.right]);
  const [low, high] = scale.domain_ as [number, number];
  const at = (value: number) => scale(Math.min(high, Math.max(low, value)));
  const drawn = rows.map((row, i) => {
    const middle = box.top + (i + 0.5) * rowHeight;
    const dots = row.dots.map((dot, j) => {
      const y = middle + (j - (row.dots.length - 1) / 2) * (row.dots.length > 2 ? DOT_STEP : 8);
      const colour = colours.get(dot.series)!;
      return (
        `<line x1="${fixed(at(dot.low))}" x2="${fixed(at(dot.high))}" y1="${fixed(y)}" y2="${fixed(y)}" stroke="${colour}"/>` +
        `<circle cx="${fixed(at(dot.value))}" cy="${fixed(y)}" r="3" fill="${colour}"/>`
      );
    });
    const edge = middle + rowHeight / 2;
    const rule =
      i === rows.length - 1 || rowHeight === 26
        ? ''
        : `<line x1="${box.left}" x2="${box.right}" y1="${edge}" y2="${edge}" stroke="#e4e4e4"/>`;
    return `${rule}<text x="${box.left - 10}" y="${middle + 4}" text-anchor="end">${escaped(row.label)}</text>${dots.join('')}`;
  });
  const mark =
    reference === undefined
      ? ''
      : `<line x1="${fixed(at(reference))}" x2="${fixed(at(reference))}" y1="${box.top}" y2="${box.bottom}" stroke="#444" stroke-dasharray="4 3"/>`;
  const names = [...colours].map(([name, colour]) => ({ name, colour }));
  return document(title, height, [
    grid(scale, x, box, 'x'),
    mark,
    ...drawn,
    legend(names, box.right + 16, box.top + 8),
  ]);
}

type Placed = Scale & { readonly domain_: readonly number[] };

function scaleFor(axis: Axis, values: readonly number[], range: readonly [number, number]): Placed {
  const finite = values.filter((value) => Number.isFinite(value) && (!axis.log || value > 0));
  const highest = Math.max(...finite);
  const lowest = axis.log ? Math.min(...finite) : Math.min(0, ...finite);
  const named = axis.ticks === undefined ? undefined : ([axis.ticks[0]!, axis.ticks.at(-1)!] as const);
  const domain = axis.domain ?? named ?? [lowest, highest];
  const scale = (axis.log ? scaleLog() : scaleLinear()).domain(domain).range(range);
  return Object.assign(scale, { domain_: domain });
}

interface Box {
  readonly left: number;
  readonly right: number;
  readonly top: number;
  readonly bottom: number;
}

function grid(scale: Scale, axis: Axis, box: Box, side: 'x' | 'y'): string {
  const format = axis.log ? scale.tickFormat(6, '~r') : scale.tickFormat(8);
  const ticks = (axis.ticks ?? scale.ticks(axis.log ? 6 : 8)).map((tick) => ({
    at: fixed(scale(tick)),
    text: axis.ticks === undefined ? format(tick) : String(tick),
  }));
  const middle = side === 'x' ? (box.left + box.right) / 2 : (box.top + box.bottom) / 2;
  if (side === 'x') {
    const lines = ticks.map(
      ({ at, text }) =>
        `<line x1="${at}" x2="${at}" y1="${box.top}" y2="${box.bottom}" stroke="#e4e4e4"/><text x="${at}" y="${box.bottom + 17}" text-anchor="middle">${text}</text>`,
    );
    return `${lines.join('')}<text x="${middle}" y="${box.bottom + 37}" text-anchor="middle">${escaped(axis.title)}</text>`;
  }
  const lines = ticks.map(
    ({ at, text }) =>
      `<line x1="${box.left}" x2="${box.right}" y1="${at}" y2="${at}" stroke="#e4e4e4"/><text x="${box.left - 8}" y="${Number(at) + 4}" text-anchor="end">${text}</text>`,
  );
  return `${lines.join('')}<text transform="translate(16 ${middle}) rotate(-90)" text-anchor="middle">${escaped(axis.title)}</text>`;
}

function legend(
  entries: ReadonlyArray<{ readonly name: string; readonly colour: string }>,
  x: number,
  y: number,
): string {
  return entries
    .map(
      ({ name, colour }, i) =>
        `<circle cx="${x + 5}" cy="${y + i * LEGEND_STEP}" r="4" fill="${colour}"/><text x="${x + 16}" y="${y + i * LEGEND_STEP + 4}">${escaped(name)}</text>`,
    )
    .join('');
}

function document(title: string, height: number, parts: readonly string[]): string {
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" ${FONT} fill="#222">`,
    `<title>${escaped(title)}</title>`,
    `<rect width="${WIDTH}" height="${height}" fill="#fff"/>`,
    `<text x="16" y="22" font-size="14" font-weight="600">${escaped(title)}</text>`,
    ...parts.filter((part) => part !== ''),
    '</svg>',
    '',
  ].join('\n');
}

function fixed(value: number): string {
  return value.toFixed(1);
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
