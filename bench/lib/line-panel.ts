/** A panel of curves over a quantity, with marks where something happened. */
import { scaleLinear, type ScaleLinear } from 'd3-scale';
import { at, grid, line, MARGIN, PANEL, shortly, text, TICKS, type ColourIndex } from './svg.ts';

export type Point = readonly [x: number, y: number];

export interface Curve {
  readonly colour: ColourIndex;
  readonly points: readonly Point[];
  /** A dot and a number at each point: for few of them. */
  readonly dots?: boolean;
}

export interface Mark {
  readonly x: number;
  readonly label: string;
}

export interface LinePanel {
  readonly title: string;
  readonly unit: string;
  readonly x: { readonly unit: string; readonly from: number; readonly to: number };
  readonly curves: readonly Curve[];
  readonly marks?: readonly Mark[];
}

type Scale = ScaleLinear<number, number>;

/** Below the first, which is at the top: marks may stand close together. */
const LABEL_STEP = 13;
/** A label of so many px is written to the left of its mark where there is no room to its right. */
const LABEL_WIDTH = 110;

function curveOf({ colour, points, dots = false }: Curve, x: Scale, y: Scale): string[] {
  const path = points.map(([px, py]) => `${at(x(px))},${at(y(py))}`).join(' ');
  const drawn = `<polyline points="${path}" class="curve l${colour}"/>`;
  if (!dots) return [drawn];
  const each = points.flatMap(([px, py]) => [
    `<circle cx="${at(x(px))}" cy="${at(y(py))}" r="3.5" class="s${colour}"/>`,
    text(x(px), y(py) - 8, shortly(py), 'small value', 'middle'),
  ]);
  return [drawn, ...each];
}

function markOf({ x: px, label }: Mark, index: number, x: Scale): string[] {
  const left = x(px) > PANEL.width - MARGIN.right - LABEL_WIDTH;
  const y = MARGIN.top + 9 + index * LABEL_STEP;
  return [
    line(x(px), MARGIN.top, x(px), PANEL.height - MARGIN.bottom, 'mark'),
    text(x(px) + (left ? -5 : 5), y, label, 'small value muted', left ? 'end' : 'start'),
  ];
}

export function linePanel({ title, unit, x: along, curves, marks = [] }: LinePanel): string {
  const highest = Math.max(...curves.flatMap(({ points }) => points.map(([, y]) => y)), Number.MIN_VALUE);
  const y = scaleLinear([0, highest], [PANEL.height - MARGIN.bottom, MARGIN.top]).nice(TICKS);
  const x = scaleLinear([along.from, along.to], [MARGIN.left, PANEL.width - MARGIN.right]);
  const ticks = x
    .ticks(TICKS)
    .flatMap((tick) => [
      line(x(tick), PANEL.height - MARGIN.bottom, x(tick), PANEL.height - MARGIN.bottom + 4, 'axis'),
      text(x(tick), PANEL.height - 12, `${tick} ${along.unit}`, 'small muted', 'middle'),
    ]);
  return [
    text(MARGIN.left, 20, title, 'panel'),
    ...grid(y, unit),
    ...ticks,
    ...curves.flatMap((curve) => curveOf(curve, x, y)),
    ...marks.flatMap((mark, index) => markOf(mark, index, x)),
  ].join('\n');
}
