/** The chart in the README: the four quantities that have a bar, for each scenario and each way. */
import { barOf, chartSvg } from '../lib/chart.ts';
import { MEASURES, type Comparison } from './compare.ts';
import { WAY_NAMES, WAY_TITLES, type ScenarioName } from './plan.ts';

const LABELS: Readonly<Record<ScenarioName, string>> = {
  plain: 'veth, random',
  gbitRandom: '1 Gbit/s, random',
  gbitCompressible: '1 Gbit/s, text',
};

export function figure(comparisons: readonly Comparison[]): string {
  return chartSvg({
    title: 'A Linux guest in QEMU, moved by QEMU’s own post-copy and by pagewake',
    subtitle:
      '1 GiB, 512 MiB in use at full speed, 1 vCPU (TCG), 2 shared cores; medians, lines from least to most; less is better',
    series: WAY_NAMES.map((way) => WAY_TITLES[way]),
    panels: MEASURES.filter(({ ratio }) => ratio !== undefined).map(({ name, what, unit }) => ({
      title: `${what}, ${unit}`,
      unit,
      groups: comparisons.map(({ scenario, ways }) => ({
        label: LABELS[scenario.name],
        bars: WAY_NAMES.map((way) => barOf(ways[way]?.[name])),
      })),
    })),
  });
}
