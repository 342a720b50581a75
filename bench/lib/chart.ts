/** A chart: a title, what the colours mean, and one panel a quantity. */
import { barPanel, type Bar, type BarPanel } from './bar-panel.ts';
import { linePanel, type LinePanel } from './line-panel.ts';
import type { Figure } from './rows.ts';
import { at, escaped, MARGIN, PANEL, STYLE, text } from './svg.ts';

export type { Bar, BarPanel, Group } from './bar-panel.ts';
export type { Curve, LinePanel, Mark, Point } from './line-panel.ts';

export type Panel = BarPanel | LinePanel;

export interface Chart {
  readonly title: string;
  /** What was measured, and which way is better. */
  readonly subtitle: string;
  /** What each colour means, at most as many as there are; '': this one is not used. */
  readonly series: readonly string[];
  readonly panels: readonly Panel[];
}

const COLUMNS = 2;
const HEADER_HEIGHT = 84;
const MOST_SERIES = 3;

/** Medians, with a line from the least to the most of the runs. */
export function barOf(figure: Figure | undefined): Bar | undefined {
  return figure && { value: figure.median, low: Math.min(...figure.runs), high: Math.max(...figure.runs) };
}

function legend(series: readonly string[]): string[] {
  let x: number = MARGIN.left;
  return series.flatMap((name, index) => {
    if (name === '') return [];
    const swatch = `<rect x="${at(x)}" y="60" width="12" height="12" class="s${index}"/>`;
    const label = text(x + 18, 70, name);
    // No text is measured here: about 7 px a character at this size.
    x += 44 + name.length * 7;
    return [swatch, label];
  });
}

/** @throws RangeError where a series would have no colour */
export function chartSvg({ title, subtitle, series, panels }: Chart): string {
  if (series.length > MOST_SERIES) throw new RangeError(`${series.length} series, ${MOST_SERIES} colours`);
  const [width, height] = [COLUMNS * PANEL.width, HEADER_HEIGHT + Math.ceil(panels.length / COLUMNS) * PANEL.height];
  const placed = panels.map((panel, index) => {
    const [x, y] = [(index % COLUMNS) * PANEL.width, HEADER_HEIGHT + Math.floor(index / COLUMNS) * PANEL.height];
    const drawn = 'groups' in panel ? barPanel(panel, series) : linePanel(panel);
    return `<g transform="translate(${x} ${y})">\n${drawn}\n</g>`;
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
