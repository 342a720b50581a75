/** Medians over the runs, ratios of them, and the bars. */
import { figureOf, type Figure } from '../lib/rows.ts';
import {
  DOWNTIME_BAR_MS,
  RATIO_NAMES,
  WAY_NAMES,
  type Bars,
  type RatioName,
  type Scenario,
  type WayName,
} from './plan.ts';
import type { Run } from './run.ts';

export interface Measure {
  readonly name: string;
  readonly what: string;
  readonly unit: 's' | 'ms' | 'MB';
  /** In `unit`. */
  readonly of: (run: Run) => number;
  /** Where it is one of the ratios that have a bar. */
  readonly ratio?: RatioName;
}

export const MEASURES: readonly Measure[] = [
  { name: 'wholeS', what: 'all pages there', unit: 's', of: (r) => r.wholeMs / 1000, ratio: 'whole' },
  { name: 'downtimeMs', what: 'downtime', unit: 'ms', of: (r) => r.downtimeMs, ratio: 'downtime' },
  { name: 'gapMs', what: 'longest heartbeat gap', unit: 'ms', of: (r) => r.longestGapMs, ratio: 'gap' },
  { name: 'back90S', what: 'back at 90 % speed', unit: 's', of: (r) => r.back90Ms / 1000, ratio: 'back90' },
  { name: 'vcpuStallS', what: 'vCPU stood still', unit: 's', of: (r) => r.vcpuStallMs / 1000 },
  { name: 'wireMB', what: 'bytes on the link', unit: 'MB', of: (r) => r.wireBytes / 1e6 },
  { name: 'cpuS', what: 'CPU beside the guest', unit: 's', of: (r) => r.cpuS },
  { name: 'cpuAfterStopS', what: '  of it after STOP', unit: 's', of: (r) => r.cpuS - r.cpuBeforeS },
];

export type Figures = Readonly<Record<string, Figure>>;

/** One scenario. A way that did not run is missing. */
export interface Comparison {
  readonly scenario: Scenario;
  readonly ways: Partial<Readonly<Record<WayName, Figures>>>;
  /** pagewake's median over the better of QEMU's two medians; undefined where one of them is missing. */
  readonly ratios: Readonly<Record<RatioName, number>> | undefined;
  readonly misses: readonly string[];
  readonly wrongPages: number;
}

const NATIVE: readonly WayName[] = ['qemu', 'qemuPreempt'];

function medianOf(figures: Figures | undefined, measure: Measure): number | undefined {
  return figures?.[measure.name]?.median;
}

function ratioOf(ways: Comparison['ways'], measure: Measure): number | undefined {
  const theirs = NATIVE.flatMap((way) => medianOf(ways[way], measure) ?? []);
  const ours = medianOf(ways.pagewake, measure);
  return ours === undefined || theirs.length === 0 ? undefined : ours / Math.min(...theirs);
}

function missesOf(ratios: Bars, bars: Bars, downtimeMs: number): readonly string[] {
  const missed = RATIO_NAMES.filter((name) => !(ratios[name] <= bars[name])).map(
    (name) => `${name} ${ratios[name].toFixed(2)} of at most ${bars[name]}`,
  );
  return downtimeMs <= DOWNTIME_BAR_MS
    ? missed
    : [...missed, `downtime ${downtimeMs.toFixed(1)} ms of at most ${DOWNTIME_BAR_MS} ms`];
}

export function compare(scenario: Scenario, runs: readonly Run[]): Comparison {
  const here = runs.filter((run) => run.scenario === scenario.name);
  const ways: Partial<Record<WayName, Figures>> = {};
  for (const way of WAY_NAMES) {
    const of = here.filter((run) => run.way === way);
    if (of.length > 0) ways[way] = Object.fromEntries(MEASURES.map((m) => [m.name, figureOf(of.map(m.of))]));
  }
  const pairs = MEASURES.flatMap((measure) => {
    const ratio = measure.ratio && ratioOf(ways, measure);
    return ratio === undefined ? [] : [[measure.ratio, ratio] as const];
  });
  const ratios = pairs.length === RATIO_NAMES.length ? (Object.fromEntries(pairs) as Bars) : undefined;
  return {
    scenario,
    ways,
    ratios,
    misses: ratios ? missesOf(ratios, scenario.bars, ways.pagewake?.['downtimeMs']?.median ?? Infinity) : [],
    wrongPages: here.reduce((sum, run) => sum + run.wrongPages, 0),
  };
}

export interface Report {
  readonly wrongPages: number;
  /** Of pagewake: the longest of its medians. */
  readonly downtimeMs: number | null;
  readonly ratios: Partial<Readonly<Record<Scenario['name'], Bars>>>;
}

/** What `--json` begins with. */
export function reportOf(comparisons: readonly Comparison[]): Report {
  const downtimes = comparisons.flatMap(({ ways }) => ways.pagewake?.['downtimeMs']?.median ?? []);
  return {
    wrongPages: comparisons.reduce((sum, { wrongPages }) => sum + wrongPages, 0),
    downtimeMs: downtimes.length > 0 ? Math.max(...downtimes) : null,
    ratios: Object.fromEntries(comparisons.flatMap((c) => (c.ratios ? [[c.scenario.name, c.ratios]] : []))),
  };
}
