/** The chart of the growth section. */
import { chartSvg, type Curve, type LinePanel, type Point } from '../lib/chart.ts';

/** Medians of one size of guest. */
export interface Grown {
  readonly memoryMib: number;
  /** From the order to migrate to the last page. */
  readonly wholeS: number;
  /** Of it, before the guest is stopped. */
  readonly startS: number;
  /** Resident, at the most. */
  readonly sourceMib: number;
  readonly destinationMib: number;
}

const MIB_A_GIB = 1024;

export function growthChart(sizes: readonly Grown[]): string {
  const largest = Math.max(...sizes.map(({ memoryMib }) => memoryMib), MIB_A_GIB) / MIB_A_GIB;
  const curve = (colour: Curve['colour'], numbers: 'above' | 'below', of: (size: Grown) => number): Curve => ({
    colour,
    numbers,
    points: sizes.map((size): Point => [size.memoryMib / MIB_A_GIB, of(size)]),
  });
  const panel = (title: string, unit: string, curves: readonly Curve[]): LinePanel => ({
    title,
    unit,
    x: { unit: 'GiB', from: 0, to: largest * 1.05 },
    curves,
  });
  return chartSvg({
    title: 'What a larger guest costs',
    subtitle:
      'random memory that nobody touches, over loopback; medians; less is better, and a straight line is what it should be',
    series: ['', 'source agent', 'destination agent; time'],
    panels: [
      panel('until whole, s', 's', [curve(2, 'above', ({ wholeS }) => wholeS)]),
      panel('of it before the guest stops, s', 's', [curve(2, 'above', ({ startS }) => startS)]),
      panel('agents’ resident memory, MiB', 'MiB', [
        curve(1, 'below', ({ sourceMib }) => sourceMib),
        curve(2, 'above', ({ destinationMib }) => destinationMib),
      ]),
    ],
  });
}
