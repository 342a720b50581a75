/** What all sections came to: the table of bars, and the JSON for programs. */
import { availableParallelism, loadavg, release } from 'node:os';
import { BAR_NAMES, BARS, isMet, type Bar, type BarName } from './bars.ts';
import type { Section, SectionName, SectionResult, SizeName } from './section.ts';
import { table } from './table.ts';

export interface Machine {
  readonly cpus: number;
  readonly kernel: string;
  readonly node: string;
  readonly loadBefore: number;
}

export const machine = (): Machine => ({
  cpus: availableParallelism(),
  kernel: release(),
  node: process.version,
  loadBefore: loadavg()[0] ?? 0,
});

/** A section that was run: what came of it, or why nothing did. */
export interface Done {
  readonly section: Section;
  readonly seconds: number;
  readonly outcome: SectionResult | Error;
}

type Ratios = Partial<Record<BarName, number>>;

function ratiosOf(done: readonly Done[]): Ratios {
  const ratios: Ratios = {};
  for (const { outcome } of done) if (!(outcome instanceof Error)) Object.assign(ratios, outcome.bars);
  return ratios;
}

/** The bars of the sections that were asked for. */
function barsOf(done: readonly Done[]): readonly (readonly [BarName, Bar])[] {
  const asked = new Set<SectionName>(done.map(({ section }) => section.name));
  return BAR_NAMES.map((name) => [name, BARS[name]] as const).filter(([, { section }]) => asked.has(section));
}

const shown = (value: number, unit = ''): string => `${value.toFixed(value < 10 ? 2 : 0)}${unit && ` ${unit}`}`;

export function barsTable(done: readonly Done[]): string {
  const ratios = ratiosOf(done);
  return table(
    ['', 'what', 'reached', 'bar', ''],
    barsOf(done).map(([name, bar]) => {
      const reached = ratios[name];
      const said =
        reached === undefined
          ? ['–', 'not measured']
          : [shown(reached, bar.unit), isMet(bar, reached) ? 'met' : 'missed'];
      return [name, bar.what, said[0] ?? '', `${bar.is} ${bar.bar}${bar.unit ? ` ${bar.unit}` : ''}`, said[1] ?? ''];
    }),
    2,
  );
}

export function reportOf(size: SizeName, runs: number, on: Machine, done: readonly Done[]): unknown {
  const ratios = ratiosOf(done);
  const bars = barsOf(done).flatMap(([name, bar]) => {
    const ratio = ratios[name];
    return ratio === undefined ? [] : [[name, { ratio, is: bar.is, bar: bar.bar, met: isMet(bar, ratio) }] as const];
  });
  return {
    size,
    runs,
    machine: on,
    bars: Object.fromEntries(bars),
    ratios,
    seconds: Object.fromEntries(done.map(({ section, seconds }) => [section.name, seconds])),
    failed: Object.fromEntries(
      done.flatMap(({ section, outcome }) => (outcome instanceof Error ? [[section.name, outcome.message]] : [])),
    ),
    sections: Object.fromEntries(
      done.flatMap(({ section, outcome }) => (outcome instanceof Error ? [] : [[section.name, outcome.data]])),
    ),
  };
}
