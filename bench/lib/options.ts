/** What `npm run bench` can be told. */
import { parseArgs } from 'node:util';
import { SECTION_NAMES, type SectionName, type SizeName } from './section.ts';

export interface BenchOptions {
  readonly size: SizeName;
  readonly runs: number;
  readonly only: readonly SectionName[];
  /** Where the figures go for programs; relative to the root of the checkout. */
  readonly json: string | undefined;
  /** The folder that the charts go to; undefined: none are written. */
  readonly charts: string | undefined;
}

const RUNS: Readonly<Record<SizeName, number>> = { full: 3, quick: 1, smoke: 1 };

export const USAGE = `usage: npm run bench -- [--quick | --smoke] [--only NAME,...] [--json FILE] [--charts FOLDER]

Measures pagewake against programs in C that do the same with nothing of pagewake in them (bench/floor/), in turn, and prints medians,
ratios and what was to be reached.

  --quick          one run of each instead of three, and less in it: under two minutes
  --smoke          sizes that say nothing: only shows that everything runs
  --only NAME,...  of ${SECTION_NAMES.join(', ')}
  --json FILE      the figures for programs as well
  --charts FOLDER  the charts as SVG files
`;

function onlyOf(text: string | undefined): readonly SectionName[] {
  if (text === undefined) return SECTION_NAMES;
  const wanted = text.split(',');
  const unknown = wanted.find((name) => !SECTION_NAMES.some((known) => known === name));
  if (unknown !== undefined) throw new TypeError(`--only ${unknown}: give some of ${SECTION_NAMES.join(', ')}`);
  return SECTION_NAMES.filter((name) => wanted.includes(name));
}

/** @throws TypeError that names the argument */
export function parseOptions(argv: readonly string[]): BenchOptions | 'help' {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      quick: { type: 'boolean', default: false },
      smoke: { type: 'boolean', default: false },
      only: { type: 'string' },
      json: { type: 'string' },
      charts: { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) return 'help';
  if (values.quick && values.smoke) throw new TypeError('give --quick or --smoke, not both');
  const size = values.smoke ? 'smoke' : values.quick ? 'quick' : 'full';
  return { size, runs: RUNS[size], only: onlyOf(values.only), json: values.json, charts: values.charts };
}
