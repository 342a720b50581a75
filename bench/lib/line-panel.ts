/** A panel of curves over a quantity, with marks where something happened. */
import { scaleLinear, type ScaleLinear } from 'd3-scale';
import { at, grid, line, MARGIN, PANEL, shortly, text, TICKS, type ColourIndex } from './svg.ts';

export type Point = readonly [x: number, y: number];

export interface Curve {
  readonly colour: ColourIndex;
  readonly points: readonly Point[];
  /** A dot and, above or below it, a number at each point: for few of them. */
  readonly numbers?: 'above' | 'below';
}

export interface Mark {
  readonly x: number;
  readonly label: string;
  /** On which side of it the label is: away from the other marks. */
  readonly side: 'left' | 'right';
}

export interface LinePanel {
  readonly title: string;
  readonly unit: string;
  readonly x: { readonly unit: string; readonly from: number; readonly to: number };
  readonly curves: readonly Curve[];
  readonly marks?: readonly Mark[];
}

type Scale = ScaleLinear<number, number>;

function curveOf({ colour, points, numbers }: Curve, x: Scale, y: Scale): string[] {
  const path = points.map(([px, py]) => `${at(x(px))},${at(y(py))}`).join(' ');
  const drawn = `<polyline points="${path}" class="curve l${colour}"/>`;
  if (numbers === undefined) return [drawn];
  const each = points.flatMap(([px, py]) => [
    `<circle cx="${at(x(px))}" cy="${at(y(py))}" r="3.5" class="s${colour}"/>`,
    text(x(px), y(py) + (numbers === 'above' ? -8 : 16), shortly(py), 'small value', 'middle'),
  ]);
  return [drawn, ...each];
}

function markOf({ x: px, label, side }: Mark, x: Scale): string[] {
  const toLeft = side === 'left';
  return [
    line(x(px), MARGIN.top, x(px), PANEL.height - MARGIN.bottom, 'mark'),
    text(
      x(px) + (toLeft ? -5 : 5),
      PANEL.height - MARGIN.bottom - 8,
      label,
      'small value muted',
      toLeft ? 'end' : 'start',
    ),
  ];
}

/** With a minus as long as a digit is wide. */
const signed = (value: number): string => String(value).replace('-', '−');

export function linePanel({ title, unit, x: along, curves, marks = [] }: LinePanel): string {
  const highest = Math.max(...curves.flatMap(({ points }) => points.map(([, y]) => y)), Number.MIN_VALUE);
  const y = scaleLinear([0, highest], [PANEL.height - MARGIN.bottom, MARGIN.top]).nice(TICKS);
  const x = scaleLinear([along.from, along.to], [MARGIN.left, PANEL.width - MARGIN.right]);
  const ticks = x
    .ticks(TICKS)
    .flatMap((tick) => [
      line(x(tick), PANEL.height - MARGIN.bottom, x(tick), PANEL.height - MARGIN.bottom + 4, 'axis'),
      text(x(tick), PANEL.height - 12, `${signed(tick)} ${along.unit}`, 'small muted', 'middle'),
    ]);
  return [
    text(MARGIN.left, 20, title, 'panel'),
    ...grid(y, unit),
    ...ticks,
    ...curves.flatMap((curve) => curveOf(curve, x, y)),
    ...marks.filter((mark) => mark.x >= along.from && mark.x <= along.to).flatMap((mark) => markOf(mark, x)),
  ].join('\n');
}
