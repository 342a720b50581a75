/** What a part of the benchmark is: it sets up and ends what it needs, product and floor in turn, and says what came of it. */
import type { BarName } from './bars.ts';

export type SizeName = 'full' | 'quick' | 'smoke';

export const SECTION_NAMES = ['stalls', 'bulk', 'populate', 'growth', 'many', 'guest'] as const;
export type SectionName = (typeof SECTION_NAMES)[number];

export interface Context {
  readonly size: SizeName;
  /** Of each thing that is measured; the figures are medians over them. */
  readonly runs: number;
  /** For sockets and files; of this section alone, and gone after it. */
  readonly folder: string;
  /** A line for whoever watches. */
  readonly say: (text: string) => void;
  /** What has to be ended, last first, after the section or when a signal comes. */
  readonly cleanup: (step: () => void | Promise<void>) => void;
}

export interface Chart {
  /** A name alone, without a folder. */
  readonly file: string;
  readonly svg: string;
}

export interface SectionResult {
  readonly table: string;
  /** Product over floor, but where the bar is a figure of its own (`bars.ts`). What could not be measured is left out. */
  readonly bars: Partial<Readonly<Record<BarName, number>>>;
  /** All that was measured, for the JSON. */
  readonly data: unknown;
  readonly charts?: readonly Chart[];
}

export interface Section {
  readonly name: SectionName;
  readonly title: string;
  /** @throws Error where a page is wrong, or what was measured is not what it says: that fails the run, a figure never does */
  run(context: Context): Promise<SectionResult>;
}
