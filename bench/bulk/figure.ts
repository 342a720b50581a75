/** The chart of the bulk section. */
import { barOf, chartSvg, type BarPanel } from '../lib/chart.ts';
import type { Row } from '../lib/rows.ts';

/** What is drawn of a row. */
export interface Drawn {
  readonly what: string;
  readonly rate: Row;
  readonly cpuOfSource: Row;
  readonly cpuOfDestination: Row;
}

type Quantity = Exclude<keyof Drawn, 'what'>;

function panelOf(rows: readonly Drawn[], quantity: Quantity, title: string, unit: string): BarPanel {
  return {
    title,
    unit,
    groups: rows.map((row) => ({
      label: row.what,
      bars: [barOf(row[quantity].floor), undefined, barOf(row[quantity].product)],
    })),
  };
}

/**
 * @param local on loopback
 * @param gbit at 1 Gbit/s; empty: not measured
 */
export function bulkChart(mib: number, local: readonly Drawn[], gbit: readonly Drawn[]): string {
  return chartSvg({
    title: `${mib} MiB that nobody touches, by what they hold`,
    subtitle:
      'the floor sends everything as it is; medians, lines from least to most; more MB/s are better, less CPU is',
    series: ['C page server', '', 'pagewake'],
    panels: [
      panelOf(local, 'rate', 'guest memory, loopback, MB/s', 'MB/s'),
      ...(gbit.length > 0 ? [panelOf(gbit, 'rate', 'guest memory, 1 Gbit/s, MB/s', 'MB/s')] : []),
      panelOf(local, 'cpuOfSource', 'source’s CPU on loopback, s a GiB', 's'),
      panelOf(local, 'cpuOfDestination', 'destination’s CPU on loopback, s a GiB', 's'),
    ],
  });
}
