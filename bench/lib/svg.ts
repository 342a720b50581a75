/**
 * What all charts are drawn with: an SVG that stands alone, brings its own background and follows the reader's light or dark setting. d3-scale finds
 * ticks and places; a whole chart library would bring a DOM or a canvas to draw rectangles.
 */
import type { ScaleLinear } from 'd3-scale';

export const PANEL = { width: 430, height: 230 } as const;
export const MARGIN = { left: 44, right: 12, top: 40, bottom: 30 } as const;
export const TICKS = 5;

/** Told apart by lightness as well as by hue, on either background. */
const COLOURS = { light: ['#b0b8c1', '#6b7682', '#0a7a6f'], dark: ['#6b7682', '#a9b4c0', '#2fc4b2'] } as const;
export type ColourIndex = 0 | 1 | 2;

const ofColours = (colours: readonly string[]): string =>
  colours.map((colour, index) => `.s${index}{fill:${colour}}.l${index}{stroke:${colour}}`).join('');

export const STYLE = `
text{font:12px system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif;fill:#24292f}
.title{font-size:17px;font-weight:600}.panel{font-size:13px;font-weight:600}.small{font-size:10.5px}.tiny{font-size:9px}.muted{fill:#57606a}
.value{stroke:#ffffff;stroke-width:3px;paint-order:stroke;stroke-linejoin:round}.back{fill:#ffffff}.grid{stroke:#d8dee4}.axis{stroke:#8c959f}.range{stroke:#24292f}
.curve{fill:none;stroke-width:2;stroke-linejoin:round}.mark{stroke:#57606a;stroke-dasharray:3 3}
${ofColours(COLOURS.light)}
@media (prefers-color-scheme:dark){text{fill:#e6edf3}.muted{fill:#9ea7b3}.value{stroke:#0d1117}.back{fill:#0d1117}.grid{stroke:#2b323b}.axis{stroke:#6e7681}.range{stroke:#e6edf3}.mark{stroke:#9ea7b3}${ofColours(COLOURS.dark)}}
`;

const ESCAPES: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };
export const escaped = (text: string): string =>
  text.replace(/[&<>"]/g, (character) => ESCAPES[character] ?? character);
export const at = (value: number): string => String(Math.round(value * 10) / 10);

export function text(
  x: number,
  y: number,
  content: string,
  classes = '',
  anchor: 'start' | 'middle' | 'end' = 'start',
): string {
  return `<text x="${at(x)}" y="${at(y)}"${classes && ` class="${classes}"`} text-anchor="${anchor}">${escaped(content)}</text>`;
}

export const line = (x1: number, y1: number, x2: number, y2: number, name: string): string =>
  `<line x1="${at(x1)}" y1="${at(y1)}" x2="${at(x2)}" y2="${at(y2)}" class="${name}"/>`;

/** Three digits that count: "0.42", "4.21", "12.3", "264". */
export const shortly = (value: number): string => value.toFixed(value >= 100 ? 0 : value >= 10 ? 1 : 2);

/** Lines across a panel, each with its number; the lowest one is the axis and has the unit. */
export function grid(y: ScaleLinear<number, number>, unit: string): string[] {
  return y.ticks(TICKS).flatMap((tick) => {
    const label = tick === 0 ? `0 ${unit}` : String(tick);
    return [
      line(MARGIN.left, y(tick), PANEL.width - MARGIN.right, y(tick), tick === 0 ? 'axis' : 'grid'),
      text(MARGIN.left - 6, y(tick) + 4, label, 'small muted', 'end'),
    ];
  });
}
