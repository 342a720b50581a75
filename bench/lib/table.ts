/** The tables on standard output: plain text that can be pasted. */
import type { PopulateRow, Row } from './rows.ts';

export type Cells = readonly string[];

/** The first column to the left, numbers to the right. */
export function table(head: Cells, rows: readonly Cells[]): string {
  const widths = head.map((_, column) => Math.max(...[head, ...rows].map((cells) => (cells[column] ?? '').length)));
  const line = (cells: Cells): string =>
    cells
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0)))
      .join('  ');
  return [line(head), widths.map((width) => '-'.repeat(width)).join('  '), ...rows.map(line)].join('\n');
}

const amount = (value: number, unit: string): string => `${value.toFixed(value < 100 ? 1 : 0)} ${unit}`;
const kib = (bytes: number): string => (bytes < 2 ** 20 ? `${bytes / 2 ** 10} KiB` : `${bytes / 2 ** 20} MiB`);

export function comparisonTable(rows: readonly Row[]): string {
  return table(
    ['', 'product', 'floor', 'product / floor'],
    rows.map((r) => [r.what, amount(r.product.median, r.unit), amount(r.floor.median, r.unit), r.ratio.toFixed(2)]),
  );
}

export function populateTable(mib: number, rows: readonly PopulateRow[]): string {
  return table(
    [`${mib} MiB of memfd, a call`, 'UFFDIO_COPY', 'write()', '/ COPY', 'write()+CONTINUE', '/ COPY'],
    rows.map((r) => [
      kib(r.pieceBytes),
      amount(r.ms.copy.median, 'ms'),
      amount(r.ms.write.median, 'ms'),
      r.writeOverCopy.toFixed(2),
      amount(r.ms.writeContinue.median, 'ms'),
      r.writeContinueOverCopy.toFixed(2),
    ]),
  );
}
