/** The chart of the stalls section. */
import { barOf, chartSvg, type BarPanel } from '../lib/chart.ts';
import { SITUATIONS, type Condition, type Situation } from './conditions.ts';
import type { StallRow } from './rows.ts';

/** What has a bar, and under bulk the same. */
const SHOWN = [
  { name: 'noGap', label: '1 thread' },
  { name: 'gap200', label: '1, 200 us between' },
  { name: 'eight', label: '8 threads' },
] as const satisfies readonly { readonly name: Condition['name']; readonly label: string }[];
const PERCENTILES = { p50Us: 'p50', p99Us: 'p99' } as const;

function panelOf(
  rows: readonly StallRow[],
  situation: 'idle' | 'bulk',
  percentile: keyof typeof PERCENTILES,
): BarPanel {
  const row = (of: Situation, condition: Condition['name']): StallRow | undefined =>
    rows.find((r) => r.situation === of && r.condition === condition);
  return {
    title: `${PERCENTILES[percentile]}, ${SITUATIONS[situation]}, us`,
    unit: 'us',
    groups: SHOWN.map(({ name, label }) => ({
      label,
      bars: [
        barOf(row(situation, name)?.floor[percentile]),
        situation === 'idle' ? barOf(row('spin', name)?.product[percentile]) : undefined,
        barOf(row(situation, name)?.product[percentile]),
      ],
    })),
  };
}

export function stallsChart(rows: readonly StallRow[], spinUs: number): string {
  return chartSvg({
    title: 'How long a touch of a missing page waits',
    subtitle:
      '1 or 8 threads, each from page to page, over loopback; medians, lines from least to most; less is better',
    series: ['C page server', `pagewake that spins ${spinUs} us`, 'pagewake'],
    panels: (['idle', 'bulk'] as const).flatMap((situation) =>
      (['p50Us', 'p99Us'] as const).map((percentile) => panelOf(rows, situation, percentile)),
    ),
  });
}
