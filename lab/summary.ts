/** The last thing that `npm run lab` prints. */
import type { Verdict } from './verdict.ts';

export interface Row {
  readonly stage: string;
  readonly run: string;
  readonly seconds: number;
  readonly verdict: Verdict;
}

const HEAD = ['STAGE', 'RUN', 'PASSED', 'FAILED', 'SKIPPED', 'SECONDS'];

export function summary(rows: readonly Row[]): string {
  const cells = rows.map(({ stage, run, seconds, verdict }) => [
    stage,
    run,
    String(verdict.passed),
    String(verdict.failed),
    String(verdict.skipped.length),
    seconds.toFixed(0),
  ]);
  const widths = HEAD.map((title, column) => Math.max(title.length, ...cells.map((row) => row[column]?.length ?? 0)));
  const line = (row: readonly string[]): string =>
    row
      .map((cell, column) => (column < 2 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0)))
      .join('  ')
      .trimEnd();
  const details = rows.flatMap(({ stage, run, verdict }) => [
    ...verdict.notes.map((note) => `${stage}, ${run}: ${note}`),
    ...verdict.skipped.map((why) => `${stage}, ${run}: skipped: ${why}`),
  ]);
  return [line(HEAD), ...cells.map(line), ...(details.length > 0 ? ['', ...details] : [])].join('\n');
}
