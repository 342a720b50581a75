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
  /** How long is walked before it counts: both sides start cold, and a lane is compiled while it runs. */
  readonly warmUpMs: number;
  readonly idleMs: number;
  readonly bulkMs: number;
  /** Of the touches under bulk so many at least must be faults that went to the source, or what was measured is prefetch. */
  readonly leastDemand: number;
  /** Of the time that a walk was to take: bulk that is through before leaves nothing to measure. */
  readonly leastTime: number;
}

const STRICT = { leastDemand: 0.9, leastTime: 0.5 } as const;

export const SIZES: Readonly<Record<SizeName, Sizes>> = {
  full: { idlePages: 262_144, bulkPages: 524_288, warmUpMs: 400, idleMs: 1000, bulkMs: 1500, ...STRICT },
  quick: { idlePages: 262_144, bulkPages: 262_144, warmUpMs: 300, idleMs: 600, bulkMs: 700, ...STRICT },
  // On a machine that is busy with other tests a hundred touches may take until bulk is through; nobody reads how fast that was.
  smoke: { idlePages: 32_768, bulkPages: 65_536, warmUpMs: 10, idleMs: 60, bulkMs: 40, leastDemand: 0, leastTime: 0 },
};
