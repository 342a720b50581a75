/** The chart of the section of many migrations at once. */
import { barOf, chartSvg } from '../lib/chart.ts';
import type { Figure } from '../lib/rows.ts';

export interface AtOnce {
  readonly migrations: number;
  /** Of all of them. */
  readonly megabytesPerSecond: Figure;
  /** Until the last of them is whole. */
  readonly seconds: Figure;
  /** The same with the C programs, where that was measured. */
  readonly floorMegabytesPerSecond?: Figure;
}

export function manyChart(mib: number, rows: readonly AtOnce[]): string {
  const label = ({ migrations }: AtOnce): string => (migrations === 1 ? '1 migration' : `${migrations} at once`);
  const floor = rows.some((row) => row.floorMegabytesPerSecond !== undefined);
  return chartSvg({
    title: 'Many migrations between one pair of agents',
    subtitle: `each a guest of ${mib} MiB, over loopback; medians, lines from least to most; more MB/s and less time are better`,
    series: [floor ? 'C page server' : '', '', 'pagewake'],
    panels: [
      {
        title: 'all together, MB/s',
        unit: 'MB/s',
        groups: rows.map((row) => ({
          label: label(row),
          bars: [barOf(row.floorMegabytesPerSecond), undefined, barOf(row.megabytesPerSecond)],
        })),
      },
      {
        title: 'until the last one is whole, s',
        unit: 's',
        groups: rows.map((row) => ({ label: label(row), bars: [undefined, undefined, barOf(row.seconds)] })),
      },
    ],
  });
}
