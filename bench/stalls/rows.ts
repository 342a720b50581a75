/** Medians over the runs, for every condition in every situation, and the table of them. */
import { figureOf, type Figure } from '../lib/rows.ts';
import { table } from '../lib/table.ts';
import { CONDITIONS, SITUATIONS, type Condition, type Situation } from './conditions.ts';
import type { Walks } from './sides.ts';
import type { Walked } from './walks.ts';

export interface Quantity {
  readonly name: Exclude<keyof Walked, 'touches' | 'passed' | 'seconds' | 'maxUs'>;
  readonly title: string;
  readonly digits: number;
}

export const QUANTITIES: readonly Quantity[] = [
  { name: 'p50Us', title: 'p50, us', digits: 0 },
  { name: 'p99Us', title: 'p99, us', digits: 0 },
  { name: 'p999Us', title: 'p99.9, us', digits: 0 },
  { name: 'faultsPerSecond', title: 'faults/s', digits: 0 },
  { name: 'cpuSecondsPerGib', title: 'CPU s a GiB', digits: 1 },
  { name: 'bulkMegabytesPerSecond', title: 'bulk MB/s', digits: 0 },
];

export type Figures = Readonly<Record<Quantity['name'], Figure>>;

export interface StallRow {
  readonly situation: Situation;
  readonly condition: Condition['name'];
  readonly what: string;
  readonly product: Figures;
  /** With spin the same as idle: the floor has no such setting. */
  readonly floor: Figures;
  /** Medians, product over floor. */
  readonly ratios: Readonly<Record<Quantity['name'], number>>;
}

export type Samples = Readonly<Record<Situation, readonly { readonly product: Walks; readonly floor: Walks }[]>>;

function figuresOf(walks: readonly Walked[]): Figures {
  const entries = QUANTITIES.map(({ name }) => [name, figureOf(walks.map((walked) => walked[name]))] as const);
  return Object.fromEntries(entries) as unknown as Figures;
}

export function stallRowsOf(samples: Samples): readonly StallRow[] {
  return (Object.keys(SITUATIONS) as Situation[]).flatMap((situation) =>
    CONDITIONS.map(({ name, what }) => {
      const product = figuresOf(samples[situation].map((run) => run.product[name]));
      const floor = figuresOf(samples[situation].map((run) => run.floor[name]));
      const ratios = QUANTITIES.map((q) => [q.name, product[q.name].median / floor[q.name].median] as const);
      return {
        situation,
        condition: name,
        what: `${SITUATIONS[situation]}, ${what}`,
        product,
        floor,
        ratios: Object.fromEntries(ratios) as StallRow['ratios'],
      };
    }),
  );
}

export function stallTable(rows: readonly StallRow[]): string {
  const cell = ({ product, floor, ratios }: StallRow, { name, digits }: Quantity): string => {
    const [ours, theirs] = [product[name].median, floor[name].median];
    if (ours === 0 && theirs === 0) return '–';
    return `${ours.toFixed(digits)} / ${theirs.toFixed(digits)} = ${ratios[name].toFixed(2)}`;
  };
  return table(
    ['product / floor', ...QUANTITIES.map(({ title }) => title)],
    rows.map((row) => [row.what, ...QUANTITIES.map((quantity) => cell(row, quantity))]),
  );
}
