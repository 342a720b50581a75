/** Under which conditions memory is walked over, and how much of it. */
import type { SizeName } from '../lib/section.ts';

export interface Condition {
  readonly name: 'noGap' | 'gap200' | 'eight' | 'eightGap200';
  readonly what: string;
  readonly threads: number;
  readonly gapUs: number;
}

export const CONDITIONS: readonly Condition[] = [
  { name: 'noGap', what: '1 outstanding, no gap', threads: 1, gapUs: 0 },
  { name: 'gap200', what: '1 outstanding, 200 us gap', threads: 1, gapUs: 200 },
  { name: 'eight', what: '8 outstanding, no gap', threads: 8, gapUs: 0 },
  { name: 'eightGap200', what: '8 outstanding, 200 us gap', threads: 8, gapUs: 200 },
];

/** idle: nothing but faults. spin: the same, the agents' fault lanes stay awake. bulk: the rest of memory comes meanwhile. */
export type Situation = 'idle' | 'spin' | 'bulk';
export const SITUATIONS: Readonly<Record<Situation, string>> = { idle: 'idle', spin: 'spin', bulk: 'under bulk' };

export interface Sizes {
  /** Memory that is walked over; a power of two, of which the upper half is touched (floor/touch.h). */
  readonly idlePages: number;
  /** The same under bulk, which must not have all of it before the walk is through. */
  readonly bulkPages: number;
  /** Not counted: both sides start cold, and a lane is compiled while it runs. */
  readonly warmUp: number;
  readonly warmUpUnderBulk: number;
  readonly touches: Readonly<Record<Condition['name'], number>>;
  readonly touchesUnderBulk: Readonly<Record<Condition['name'], number>>;
}

export const SIZES: Readonly<Record<SizeName, Sizes>> = {
  full: {
    idlePages: 131_072,
    bulkPages: 524_288,
    warmUp: 3000,
    warmUpUnderBulk: 1000,
    touches: { noGap: 8000, gap200: 5000, eight: 16_000, eightGap200: 12_000 },
    touchesUnderBulk: { noGap: 5000, gap200: 4000, eight: 10_000, eightGap200: 8000 },
  },
  quick: {
    idlePages: 131_072,
    bulkPages: 262_144,
    warmUp: 3000,
    warmUpUnderBulk: 500,
    touches: { noGap: 6000, gap200: 3000, eight: 12_000, eightGap200: 6000 },
    touchesUnderBulk: { noGap: 3000, gap200: 2000, eight: 5000, eightGap200: 4000 },
  },
  smoke: {
    idlePages: 16_384,
    bulkPages: 32_768,
    warmUp: 50,
    warmUpUnderBulk: 20,
    touches: { noGap: 200, gap200: 100, eight: 400, eightGap200: 200 },
    touchesUnderBulk: { noGap: 50, gap200: 20, eight: 100, eightGap200: 50 },
  },
};
