/** A panel of bars in groups. */
import { scaleBand, scaleLinear, type ScaleBand, type ScaleLinear } from 'd3-scale';
import { at, grid, line, MARGIN, PANEL, shortly, text, TICKS } from './svg.ts';

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

export interface BarPanel {
  readonly title: string;
  readonly unit: string;
  readonly groups: readonly Group[];
}

/** One run in which something else had the machine must not press all bars together: a line ends here, times the highest bar, and says how long it is. */
const HIGHEST_LINE = 1.6;
/** A number of four digits is as wide, in px. */
const NARROW = 28;

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
      text(
        middle,
        y(bar.value) - 4,
        shortly(bar.value),
        x.bandwidth() < NARROW ? 'tiny value' : 'small value',
        'middle',
      ),
    ];
  });
}

export function barPanel(panel: BarPanel, series: readonly string[]): string {
  const bars = panel.groups.flatMap((group) => group.bars.filter((bar) => bar !== undefined));
  const longest = Math.max(...bars.map(({ high }) => high), Number.MIN_VALUE);
  const highest = Math.max(...bars.map(({ value }) => value), Number.MIN_VALUE);
  const y = scaleLinear(
    [0, Math.min(longest, HIGHEST_LINE * highest)],
    [PANEL.height - MARGIN.bottom, MARGIN.top],
  ).nice(TICKS);
  const groups = scaleBand(panel.groups.keys(), [MARGIN.left, PANEL.width - MARGIN.right]).padding(0.2);
  const used = series.flatMap((name, index) => (name === '' ? [] : [index]));
  const within = scaleBand(used, [0, groups.bandwidth()]).padding(0.08);
  const drawn = panel.groups.flatMap((group, index) => {
    const left = groups(index) ?? 0;
    const label = text(left + groups.bandwidth() / 2, PANEL.height - 10, group.label, 'small muted', 'middle');
    return [...barsOf(group, left, within, y), label];
  });
  return [text(MARGIN.left, 20, panel.title, 'panel'), ...grid(y, panel.unit), ...drawn].join('\n');
}
