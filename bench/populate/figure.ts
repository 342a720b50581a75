/** The chart of the populate section. */
import { barOf, chartSvg } from '../lib/chart.ts';
import { kib } from '../lib/table.ts';
import { CALL_TITLES, FILES, type PopulateRow } from './populate.ts';

/** Of the calls that the product makes. */
export function populateChart(mib: number, rows: readonly PopulateRow[]): string {
  const half = Math.ceil(rows.length / 2);
  const sizes = (some: readonly PopulateRow[]): string =>
    [...new Set([some[0], some.at(-1)].map((row) => kib(row?.pieceBytes ?? 0)))].join(' to ');
  return chartSvg({
    title: `${mib} MiB into an empty memfd, from memory of the same process`,
    subtitle: 'by how much is given to the kernel in a call; medians, lines from least to most; less is better',
    series: FILES.memfd.map((call) => CALL_TITLES[call]),
    panels: [rows.slice(0, half), rows.slice(half)].map((some) => ({
      title: `${sizes(some)} a call, ms`,
      unit: 'ms',
      groups: some.map((row) => ({
        label: kib(row.pieceBytes),
        bars: FILES.memfd.map((call) => barOf(row.ms[call])),
      })),
    })),
  });
}
