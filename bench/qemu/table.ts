/** What is printed: a line for each run as it ends, a table for each scenario. */
import type { Figure } from '../lib/rows.ts';
import { table } from '../lib/table.ts';
import { MEASURES, type Comparison, type Measure } from './compare.ts';
import { DOWNTIME_BAR_MS, WAY_NAMES, WAY_TITLES } from './plan.ts';
import type { Run } from './run.ts';

const digits = (unit: Measure['unit']): number => (unit === 's' ? 2 : unit === 'ms' ? 1 : 0);

function cell(figure: Figure | undefined, unit: Measure['unit']): string {
  if (!figure) return '–';
  const [least, most] = [Math.min(...figure.runs), Math.max(...figure.runs)];
  const text = (value: number): string => value.toFixed(digits(unit));
  const median = `${text(figure.median)} ${unit}`;
  return figure.runs.length > 1 ? `${median} (${text(least)}–${text(most)})` : median;
}

export function runLine(run: Run): string {
  const values = MEASURES.map((m) => `${m.what} ${m.of(run).toFixed(digits(m.unit))} ${m.unit}`);
  const back = run.isBack ? '' : ' (never back while watched)';
  return `${run.scenario}, ${WAY_TITLES[run.way]}: ${values.join(', ')}${back}, ${run.verifiedPages} pages verified, ${run.wrongPages} wrong`;
}

export function comparisonTable({ scenario, ways, ratios, misses, wrongPages }: Comparison): string {
  const rows = MEASURES.map((measure) => {
    const { what, unit, name, ratio } = measure;
    const cells = [what, ...WAY_NAMES.map((way) => cell(ways[way]?.[name], unit))];
    if (ratio === undefined || !ratios) return [...cells, '', ''];
    const bar = `${scenario.bars[ratio]}${ratio === 'downtime' ? `, ${DOWNTIME_BAR_MS} ms` : ''}`;
    return [...cells, ratios[ratio].toFixed(2), bar];
  });
  const head = [scenario.what, ...WAY_NAMES.map((way) => WAY_TITLES[way]), 'ratio', 'at most'];
  const verdict = !ratios
    ? 'nothing to compare'
    : misses.length === 0
      ? 'every bar is met'
      : `missed: ${misses.join('; ')}`;
  return `${table(head, rows)}\n${verdict}; ${wrongPages} wrong pages`;
}
