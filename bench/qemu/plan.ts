/** What is compared: links and kinds of memory, ways to migrate, and how far apart they have to be. */
import type { GuestOptions } from '../../e2e/qemu/guest.ts';

export const SCENARIO_NAMES = ['plain', 'gbitRandom', 'gbitCompressible'] as const;
export type ScenarioName = (typeof SCENARIO_NAMES)[number];

/** Each name is a ratio: the median of pagewake over the better of the two medians of QEMU. */
export const RATIO_NAMES = ['whole', 'gap', 'back90', 'downtime'] as const;
export type RatioName = (typeof RATIO_NAMES)[number];

export type Bars = Readonly<Record<RatioName, number>>;

export interface Scenario {
  readonly name: ScenarioName;
  readonly what: string;
  /** Both ways, by a token bucket; undefined: as fast as a veth pair is. */
  readonly mbitPerS: number | undefined;
  readonly fill: NonNullable<GuestOptions['fill']>;
  /** At most. */
  readonly bars: Bars;
}

const BARS = { gap: 0.5, back90: 0.4, downtime: 1.5 } as const;
/** The downtime has a bar of its own beside that of its ratio: with small figures, a ratio says little. */
export const DOWNTIME_BAR_MS = 30;

export const SCENARIOS: readonly Scenario[] = [
  {
    name: 'plain',
    what: 'plain veth, random memory',
    mbitPerS: undefined,
    fill: 'random',
    bars: { ...BARS, whole: 0.5 },
  },
  {
    name: 'gbitRandom',
    what: '1 Gbit/s, random memory',
    mbitPerS: 1000,
    fill: 'random',
    bars: { ...BARS, whole: 0.8 },
  },
  {
    name: 'gbitCompressible',
    what: '1 Gbit/s, compressible memory',
    mbitPerS: 1000,
    fill: 'text',
    bars: { ...BARS, whole: 0.4 },
  },
];

export const WAY_NAMES = ['qemu', 'qemuPreempt', 'pagewake'] as const;
export type WayName = (typeof WAY_NAMES)[number];

export const WAY_TITLES: Readonly<Record<WayName, string>> = {
  qemu: 'QEMU',
  qemuPreempt: 'QEMU, preempt',
  pagewake: 'pagewake',
};

export interface Sizes {
  readonly name: 'full' | 'quick' | 'smoke';
  readonly runs: number;
  readonly memoryMiB: number;
  /** Of it: what the guest fills, verifies and rewrites. */
  readonly workMiB: number;
  /** How long the guest works before each migration, to know its speed. */
  readonly beforeMs: number;
  /** How long after the last page it is waited for the guest to be as fast as before. */
  readonly settleMs: number;
  readonly ways: readonly WayName[];
}

const GUEST = { memoryMiB: 1024, workMiB: 512, beforeMs: 3000, settleMs: 20_000, ways: WAY_NAMES } as const;

export const SIZES: Readonly<Record<Sizes['name'], Sizes>> = {
  full: { name: 'full', runs: 3, ...GUEST },
  quick: { name: 'quick', runs: 1, ...GUEST },
  smoke: {
    name: 'smoke',
    runs: 1,
    ...{ memoryMiB: 128, workMiB: 16, beforeMs: 600, settleMs: 1000 },
    ways: ['qemuPreempt', 'pagewake'],
  },
};
