/** What is to be reached, by name: the names are those of the JSON, and stay. */
import type { SectionName } from './section.ts';

export interface Bar {
  readonly section: SectionName;
  readonly what: string;
  /** Which side of it is good. */
  readonly is: 'at most' | 'at least';
  readonly bar: number;
  /** Of a figure that is no ratio. */
  readonly unit?: string;
}

/** Product over floor where nothing else is said. */
export const BARS = {
  stallP50NoGap: { section: 'stalls', what: 'fault stall p50, 1 outstanding, no gap', is: 'at most', bar: 2 },
  stallP50Gap200: { section: 'stalls', what: 'fault stall p50, 1 outstanding, 200 us gap', is: 'at most', bar: 2.5 },
  stallP50NoGapSpin: { section: 'stalls', what: 'fault stall p50 with spin, no gap', is: 'at most', bar: 1.2 },
  stallP50Gap200Spin: { section: 'stalls', what: 'fault stall p50 with spin, 200 us gap', is: 'at most', bar: 1.5 },
  stallP99UnderBulk: { section: 'stalls', what: 'fault stall p99 while bulk runs', is: 'at most', bar: 4 },
  bulkUnderStallMBs: {
    section: 'stalls',
    what: 'bulk while faults are served',
    is: 'at least',
    bar: 150,
    unit: 'MB/s',
  },
  faultRate8: { section: 'stalls', what: 'faults a second, 8 outstanding', is: 'at least', bar: 0.45 },
  bulkRandom: { section: 'bulk', what: 'bulk fill MB/s, random memory', is: 'at least', bar: 0.3 },
  bulkZeroHeavy: { section: 'bulk', what: 'bulk fill MB/s, 80 % zero pages', is: 'at least', bar: 1 },
  bulkText: { section: 'bulk', what: 'bulk fill MB/s, text-like memory', is: 'at least', bar: 1 },
  networkFaultsSequential: {
    section: 'guest',
    what: 'faults on the network over pages touched first, sequential',
    is: 'at most',
    bar: 0.1,
  },
  networkFaultsRandom: {
    section: 'guest',
    what: 'faults on the network over pages touched first, random',
    is: 'at most',
    bar: 0.6,
  },
  bytesPerGuestPage: {
    section: 'growth',
    what: 'agents’ memory beyond 150 MiB, a guest page',
    is: 'at most',
    bar: 64,
    unit: 'B',
  },
  growth1to8: { section: 'growth', what: 'time for 8 GiB over 8 times that for 1 GiB', is: 'at most', bar: 1.15 },
  many16: { section: 'many', what: 'MB/s of 16 migrations at once over those of one', is: 'at least', bar: 1 },
} as const satisfies Readonly<Record<string, Bar>>;

export type BarName = keyof typeof BARS;
export const BAR_NAMES = Object.keys(BARS) as readonly BarName[];

export function isMet({ is, bar }: Bar, reached: number): boolean {
  return is === 'at most' ? reached <= bar : reached >= bar;
}
