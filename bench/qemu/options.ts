/** What `npm run bench:qemu` can be told. */
import { parseArgs } from 'node:util';
import { SCENARIO_NAMES, SCENARIOS, SIZES, type Scenario, type Sizes } from './plan.ts';

export interface QemuBenchOptions {
  readonly sizes: Sizes;
  readonly scenarios: readonly Scenario[];
  /** Where the figures go for programs; relative to the root of the checkout, as the others. */
  readonly json: string | undefined;
  /** Where the chart goes; undefined: nowhere. */
  readonly chart: string | undefined;
  /** Where what every process said stays, run by run; undefined: nowhere. */
  readonly keep: string | undefined;
}

/** The one that the README shows. Only a full run may change it by itself. */
const CHART = 'docs/figures/qemu.svg';

export const USAGE = `usage: npm run bench:qemu -- [--quick | --smoke] [--only ${SCENARIO_NAMES.join('|')}] [--json FILE] [--chart FILE] [--keep FOLDER]

A Linux guest in QEMU, migrated by QEMU's own post-copy (preempt off and on) and by pagewake, in turn, between the same two
network namespaces. Prints medians, ratios and whether each bar is met. A wrong page fails the run. Needs root.

  --quick        one run of each instead of three
  --smoke        sizes that say nothing: only shows that everything runs
  --only NAME    one of the scenarios
  --json FILE    the figures for programs as well
  --chart FILE   where the chart is written to; default: ${CHART} after a full run, else nowhere
  --keep FOLDER  heartbeats, steps and what every process said, a file for each run
`;

function scenariosOf(only: string | undefined): readonly Scenario[] {
  if (only === undefined) return SCENARIOS;
  const chosen = SCENARIOS.filter((scenario) => scenario.name === only);
  if (chosen.length === 0) throw new TypeError(`--only ${only}: give one of ${SCENARIO_NAMES.join(', ')}`);
  return chosen;
}

/** @throws TypeError that names the argument */
export function parseOptions(argv: readonly string[]): QemuBenchOptions | 'help' {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      quick: { type: 'boolean', default: false },
      smoke: { type: 'boolean', default: false },
      only: { type: 'string' },
      json: { type: 'string' },
      chart: { type: 'string' },
      keep: { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) return 'help';
  if (values.quick && values.smoke) throw new TypeError('give --quick or --smoke, not both');
  const sizes = SIZES[values.smoke ? 'smoke' : values.quick ? 'quick' : 'full'];
  const scenarios = scenariosOf(values.only ?? (values.smoke ? 'plain' : undefined));
  const whole = sizes.name === 'full' && scenarios.length === SCENARIOS.length;
  return {
    sizes,
    scenarios,
    json: values.json,
    chart: values.chart ?? (whole ? CHART : undefined),
    keep: values.keep,
  };
}
