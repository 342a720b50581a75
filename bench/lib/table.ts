/** The tables on standard output: plain text that can be pasted. */
import type { Row } from './rows.ts';

export type Cells = readonly string[];

/** @param leftColumns of text, to the left; numbers follow, to the right */
export function table(head: Cells, rows: readonly Cells[], leftColumns = 1): string {
  const widths = head.map((_, column) => Math.max(...[head, ...rows].map((cells) => (cells[column] ?? '').length)));
  const line = (cells: Cells): string =>
    cells
      .map((cell, column) =>
        column < leftColumns ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0),
      )
      .join('  ');
  return [line(head), widths.map((width) => '-'.repeat(width)).join('  '), ...rows.map(line)].join('\n');
}

export const amount = (value: number, unit: string): string => `${value.toFixed(value < 100 ? 1 : 0)} ${unit}`;
export const kib = (bytes: number): string => (bytes < 2 ** 20 ? `${bytes / 2 ** 10} KiB` : `${bytes / 2 ** 20} MiB`);

export function comparisonTable(rows: readonly Row[]): string {
  return table(
    ['', 'product', 'floor', 'product / floor'],
    rows.map((r) => [r.what, amount(r.product.median, r.unit), amount(r.floor.median, r.unit), r.ratio.toFixed(2)]),
  );
}
