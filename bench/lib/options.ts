/** What `npm run bench` can be told, and how much work each size is. */
import { parseArgs } from 'node:util';

export interface Sizes {
  readonly name: 'full' | 'quick' | 'smoke';
  readonly runs: number;
  /** Memory that is walked over; a power of two, of which the upper half is touched (floor/touch.h). */
  readonly walkPages: number;
  /** Memory that is filled in bulk; a power of two. */
  readonly fillPages: number;
  readonly populateMib: number;
  /** Touches of each walk; together at most half of `walkPages`. */
  readonly touches: {
    readonly warmUp: number;
    readonly noGap: number;
    readonly gap200: number;
    readonly eight: number;
  };
}

/**
 * Walks have 512 MiB even where few pages are touched: prefetch may run through the lower half of it before the pause is through without
 * coming near a page that is measured.
 */
const WALK_PAGES = 131_072;

const SIZES: Readonly<Record<Sizes['name'], Sizes>> = {
  full: {
    name: 'full',
    runs: 3,
    walkPages: WALK_PAGES,
    fillPages: 131_072,
    populateMib: 512,
    touches: { warmUp: 2000, noGap: 8000, gap200: 4000, eight: 16_000 },
  },
  quick: {
    name: 'quick',
    runs: 1,
    walkPages: WALK_PAGES,
    fillPages: 131_072,
    populateMib: 512,
    touches: { warmUp: 1000, noGap: 4000, gap200: 2000, eight: 8000 },
  },
  smoke: {
    name: 'smoke',
    runs: 1,
    walkPages: WALK_PAGES,
    fillPages: 8192,
    populateMib: 16,
    touches: { warmUp: 50, noGap: 200, gap200: 100, eight: 400 },
  },
};

export interface BenchOptions {
  readonly sizes: Sizes;
  /** Where the figures go for programs; relative to the root of the checkout. */
  readonly json: string | undefined;
}

export const USAGE = `usage: npm run bench -- [--quick | --smoke] [--json FILE]

Measures pagewake against a C page server with a C fault handler (bench/floor/), in turn, and prints medians and ratios.

  --quick      one run of each instead of three, and fewer touches
  --smoke      sizes that say nothing: only shows that everything runs
  --json FILE  the figures for programs as well
`;

/** @throws TypeError that names the argument */
export function parseOptions(argv: readonly string[]): BenchOptions | 'help' {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      quick: { type: 'boolean', default: false },
      smoke: { type: 'boolean', default: false },
      json: { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) return 'help';
  if (values.quick && values.smoke) throw new TypeError('give --quick or --smoke, not both');
  return { sizes: SIZES[values.smoke ? 'smoke' : values.quick ? 'quick' : 'full'], json: values.json };
}
