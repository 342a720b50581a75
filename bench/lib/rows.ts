/** Medians over runs, and rows that set the product beside the floor. */

/** What is taken of one run of one side. */
export interface Measure<Sample> {
  /** In the JSON. */
  readonly name: string;
  readonly what: string;
  readonly unit: string;
  readonly of: (sample: Sample) => number;
}

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

/** @throws RangeError where there is nothing to take it of */
export function figureOf(runs: readonly number[]): Figure {
  const sorted = runs.toSorted((a, b) => a - b);
  const upper = sorted[Math.floor(sorted.length / 2)];
  const lower = sorted[Math.floor((sorted.length - 1) / 2)];
  if (upper === undefined || lower === undefined) throw new RangeError('a median of no runs');
  return { runs, median: (upper + lower) / 2 };
}

export function rowsOf<Sample>(
  measures: readonly Measure<Sample>[],
  product: readonly Sample[],
  floor: readonly Sample[],
): readonly Row[] {
  return measures.map(({ name, what, unit, of }) => {
    const ours = figureOf(product.map(of));
    const theirs = figureOf(floor.map(of));
    return { name, what, unit, product: ours, floor: theirs, ratio: ours.median / theirs.median };
  });
}
