/** The rows: what is taken from each run, medians over the runs, and what is compared with what. */
import type { Walks } from './destination.ts';
import { POPULATE_CALLS, type Populated, type PopulateCall } from './floor.ts';

/** What one side did in one run. */
export interface Sample {
  readonly walks: Walks;
  /** MB/s, 10^6 bytes. */
  readonly bulkRandom: number;
}

interface Measure {
  /** In the JSON. */
  readonly name: string;
  readonly what: string;
  readonly unit: 'us' | 'faults/s' | 'MB/s';
  readonly of: (sample: Sample) => number;
}

export const MEASURES: readonly Measure[] = [
  { name: 'stallP50NoGap', what: 'fault stall p50, 1 outstanding, no gap', unit: 'us', of: (s) => s.walks.noGap.p50Us },
  { name: 'stallP99NoGap', what: 'fault stall p99, 1 outstanding, no gap', unit: 'us', of: (s) => s.walks.noGap.p99Us },
  {
    name: 'stallP50Gap200',
    what: 'fault stall p50, 1 outstanding, 200 us gap',
    unit: 'us',
    of: (s) => s.walks.gap200.p50Us,
  },
  {
    name: 'stallP99Gap200',
    what: 'fault stall p99, 1 outstanding, 200 us gap',
    unit: 'us',
    of: (s) => s.walks.gap200.p99Us,
  },
  { name: 'stallP50Of8', what: 'fault stall p50, 8 outstanding', unit: 'us', of: (s) => s.walks.eight.p50Us },
  { name: 'stallP99Of8', what: 'fault stall p99, 8 outstanding', unit: 'us', of: (s) => s.walks.eight.p99Us },
  { name: 'faultRate8', what: 'faults, 8 outstanding', unit: 'faults/s', of: (s) => s.walks.eight.faultsPerSecond },
  { name: 'bulkRandom', what: 'bulk fill, random memory', unit: 'MB/s', of: (s) => s.bulkRandom },
];

export interface Figure {
  readonly runs: readonly number[];
  readonly median: number;
}

export interface Row {
  readonly name: string;
  readonly what: string;
  readonly unit: string;
  readonly product: Figure;
  readonly floor: Figure;
  /** Medians, product over floor. */
  readonly ratio: number;
}

export interface PopulateRow {
  readonly pieceBytes: number;
  readonly ms: Readonly<Record<PopulateCall, Figure>>;
  /** Medians, over UFFDIO_COPY in pieces of the same size. */
  readonly writeOverCopy: number;
  readonly writeContinueOverCopy: number;
}

/** @throws RangeError where there is nothing to take it of */
export function figureOf(runs: readonly number[]): Figure {
  const sorted = runs.toSorted((a, b) => a - b);
  const upper = sorted[Math.floor(sorted.length / 2)];
  const lower = sorted[Math.floor((sorted.length - 1) / 2)];
  if (upper === undefined || lower === undefined) throw new RangeError('a median of no runs');
  return { runs, median: (upper + lower) / 2 };
}

export function rowsOf(product: readonly Sample[], floor: readonly Sample[]): readonly Row[] {
  return MEASURES.map(({ name, what, unit, of }) => {
    const ours = figureOf(product.map(of));
    const theirs = figureOf(floor.map(of));
    return { name, what, unit, product: ours, floor: theirs, ratio: ours.median / theirs.median };
  });
}

export function populateRowsOf(runs: readonly (readonly Populated[])[]): readonly PopulateRow[] {
  const all = runs.flat();
  const sizes = [...new Set(all.map((p) => p.pieceBytes))].toSorted((a, b) => a - b);
  return sizes.map((pieceBytes) => {
    const figure = (call: PopulateCall): Figure =>
      figureOf(all.filter((p) => p.pieceBytes === pieceBytes && p.call === call).map((p) => p.ms));
    const [copy, write, writeContinue] = POPULATE_CALLS.map(figure) as [Figure, Figure, Figure];
    return {
      pieceBytes,
      ms: { copy, write, writeContinue },
      writeOverCopy: write.median / copy.median,
      writeContinueOverCopy: writeContinue.median / copy.median,
    };
  });
}
