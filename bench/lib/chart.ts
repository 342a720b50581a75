/**
 * Bars in groups, one panel a quantity, as an SVG that stands alone: it brings its own background and follows the reader's light or dark
 * setting. d3-scale finds the ticks and the places; a whole chart library would bring a DOM or a canvas to draw rectangles.
 */
import { scaleBand, scaleLinear, type ScaleBand, type ScaleLinear } from 'd3-scale';

export interface Bar {
  readonly value: number;
  /** The range of the runs behind it: a thin line where it is wider than nothing. */
  readonly low: number;
  readonly high: number;
}

export interface Group {
  readonly label: string;
  /** One a series, in their order; undefined: nothing to show. */
  readonly bars: readonly (Bar | undefined)[];
}

export interface Panel {
  readonly title: string;
  readonly unit: string;
  readonly groups: readonly Group[];
}

export interface Chart {
  readonly title: string;
  readonly subtitle: string;
  /** At most as many as there are colours. */
  readonly series: readonly string[];
  readonly panels: readonly Panel[];
}

const COLUMNS = 2;
const PANEL = { width: 430, height: 230 } as const;
const MARGIN = { left: 44, right: 12, top: 40, bottom: 30 } as const;
const HEADER_HEIGHT = 84;
const TICKS = 5;
/** One run in which something else had the machine must not press all bars together: a line ends here, times the highest bar, and says how long it is. */
const HIGHEST_LINE = 1.6;

/** Told apart by lightness as well as by hue, on either background. */
const COLOURS = { light: ['#b0b8c1', '#6b7682', '#0a7a6f'], dark: ['#6b7682', '#a9b4c0', '#2fc4b2'] } as const;

const STYLE = `
text{font:12px system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif;fill:#24292f}
.title{font-size:17px;font-weight:600}.panel{font-size:13px;font-weight:600}.small{font-size:10.5px}.muted{fill:#57606a}
.value{stroke:#ffffff;stroke-width:3px;paint-order:stroke;stroke-linejoin:round}.back{fill:#ffffff}.grid{stroke:#d8dee4}.axis{stroke:#8c959f}.range{stroke:#24292f}
${COLOURS.light.map((colour, index) => `.s${index}{fill:${colour}}`).join('')}
@media (prefers-color-scheme:dark){text{fill:#e6edf3}.muted{fill:#9ea7b3}.value{stroke:#0d1117}.back{fill:#0d1117}.grid{stroke:#2b323b}.axis{stroke:#6e7681}.range{stroke:#e6edf3}${COLOURS.dark
  .map((colour, index) => `.s${index}{fill:${colour}}`)
  .join('')}}
`;

const ESCAPES: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };
const escaped = (text: string): string => text.replace(/[&<>"]/g, (character) => ESCAPES[character] ?? character);
const at = (value: number): string => String(Math.round(value * 10) / 10);

function text(
  x: number,
  y: number,
  content: string,
  classes = '',
  anchor: 'start' | 'middle' | 'end' = 'start',
): string {
  return `<text x="${at(x)}" y="${at(y)}"${classes && ` class="${classes}"`} text-anchor="${anchor}">${escaped(content)}</text>`;
}

const line = (x1: number, y1: number, x2: number, y2: number, name: string): string =>
  `<line x1="${at(x1)}" y1="${at(y1)}" x2="${at(x2)}" y2="${at(y2)}" class="${name}"/>`;

/** Three digits that count: "0.42", "4.21", "12.3", "264". */
const shortly = (value: number): string => value.toFixed(value >= 100 ? 0 : value >= 10 ? 1 : 2);

function grid(y: ScaleLinear<number, number>, unit: string): string[] {
  return y.ticks(TICKS).flatMap((tick) => {
    const label = tick === 0 ? `0 ${unit}` : String(tick);
    return [
      line(MARGIN.left, y(tick), PANEL.width - MARGIN.right, y(tick), tick === 0 ? 'axis' : 'grid'),
      text(MARGIN.left - 6, y(tick) + 4, label, 'small muted', 'end'),
    ];
  });
}

function barsOf(group: Group, left: number, x: ScaleBand<number>, y: ScaleLinear<number, number>): string[] {
  return group.bars.flatMap((bar, series) => {
    if (!bar) return [];
    const from = left + (x(series) ?? 0);
    const middle = from + x.bandwidth() / 2;
    const height = at(y(0) - y(bar.value));
    const [, top = Infinity] = y.domain();
    const beyond =
      bar.high > top ? [text(middle, MARGIN.top - 3, `↑ ${shortly(bar.high)}`, 'small muted', 'middle')] : [];
    return [
      `<rect x="${at(from)}" y="${at(y(bar.value))}" width="${at(x.bandwidth())}" height="${height}" class="s${series}"/>`,
      ...(bar.high > bar.low ? [line(middle, y(bar.low), middle, y(Math.min(bar.high, top)), 'range')] : []),
      ...beyond,
      text(middle, y(bar.value) - 4, shortly(bar.value), 'small value', 'middle'),
    ];
  });
}

function panelOf(panel: Panel, series: readonly string[]): string {
  const bars = panel.groups.flatMap((group) => group.bars.filter((bar) => bar !== undefined));
  const longest = Math.max(...bars.map(({ high }) => high), Number.MIN_VALUE);
  const highest = Math.max(...bars.map(({ value }) => value), Number.MIN_VALUE);
  const y = scaleLinear(
    [0, Math.min(longest, HIGHEST_LINE * highest)],
    [PANEL.height - MARGIN.bottom, MARGIN.top],
  ).nice(TICKS);
  const groups = scaleBand(panel.groups.keys(), [MARGIN.left, PANEL.width - MARGIN.right]).padding(0.2);
  const within = scaleBand(series.keys(), [0, groups.bandwidth()]).padding(0.08);
  const drawn = panel.groups.flatMap((group, index) => {
    const left = groups(index) ?? 0;
    const label = text(left + groups.bandwidth() / 2, PANEL.height - 10, group.label, 'small muted', 'middle');
    return [...barsOf(group, left, within, y), label];
  });
  return [text(MARGIN.left, 20, panel.title, 'panel'), ...grid(y, panel.unit), ...drawn].join('\n');
}

function legend(series: readonly string[]): string[] {
  let x: number = MARGIN.left;
  return series.flatMap((name, index) => {
    const swatch = `<rect x="${at(x)}" y="60" width="12" height="12" class="s${index}"/>`;
    const label = text(x + 18, 70, name);
    // No text is measured here: about 7 px a character at this size.
    x += 44 + name.length * 7;
    return [swatch, label];
  });
}

/** @throws RangeError where a series would have no colour */
export function chartSvg({ title, subtitle, series, panels }: Chart): string {
  if (series.length > COLOURS.light.length)
    throw new RangeError(`${series.length} series, ${COLOURS.light.length} colours`);
  const [width, height] = [COLUMNS * PANEL.width, HEADER_HEIGHT + Math.ceil(panels.length / COLUMNS) * PANEL.height];
  const placed = panels.map((panel, index) => {
    const [x, y] = [(index % COLUMNS) * PANEL.width, HEADER_HEIGHT + Math.floor(index / COLUMNS) * PANEL.height];
    return `<g transform="translate(${x} ${y})">\n${panelOf(panel, series)}\n</g>`;
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-label="${escaped(title)}">`,
    `<style>${STYLE}</style>`,
    `<rect width="${width}" height="${height}" rx="6" class="back"/>`,
    text(MARGIN.left, 26, title, 'title'),
    text(MARGIN.left, 46, subtitle, 'muted'),
    ...legend(series),
    ...placed,
    '</svg>\n',
  ].join('\n');
}
