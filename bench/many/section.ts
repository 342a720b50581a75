/** Many migrations at once between one pair of agents, against one alone. */
import { availableMemory } from 'node:process';
import type { BarName } from '../lib/bars.ts';
import { buildFloor, startPageServer } from '../lib/floor.ts';
import { figureOf, type Figure } from '../lib/rows.ts';
import type { Context, Section, SizeName } from '../lib/section.ts';
import { table } from '../lib/table.ts';
import { manyChart } from './figure.ts';
import { measureMany, type Load, type ManySample } from './migrations.ts';

const MIB = 2 ** 20;
const PAGES_OF_MIB = 256;
/** The last is compared with the first. */
const AT_ONCE: Readonly<Record<SizeName, readonly number[]>> = { full: [1, 4, 16], quick: [1, 4, 16], smoke: [1, 2] };
/** Of the bar. */
const MOST = 16;
/** For the programs beside the two copies of all guests. */
const SPARE_MIB = 2560;

/** Of each guest. */
const MIBS: Readonly<Record<SizeName, number>> = { full: 256, quick: 128, smoke: 2 };

/** One load over all runs. */
interface AtOnce {
  readonly what: string;
  readonly load: Load;
  readonly figures: Readonly<Record<keyof ManySample, Figure>>;
  readonly samples: readonly ManySample[];
}

const KEYS = [
  'megabytesPerSecond',
  'seconds',
  'firstSeconds',
  'startMs',
  'sourceBytes',
  'destinationBytes',
  'sourceCpuS',
  'destinationCpuS',
] as const satisfies readonly (keyof ManySample)[];

interface Planned {
  readonly what: string;
  readonly load: Load;
}

/** One of the size of each, which is what the others are compared with; and one of the size of sixteen, which has as much to do as they. */
function planOf(size: SizeName, mib: number): readonly Planned[] {
  const several = AT_ONCE[size].map((migrations) => ({
    what: `${migrations} of ${mib} MiB`,
    load: { migrations, pages: mib * PAGES_OF_MIB },
  }));
  return [...several, { what: `1 of ${MOST * mib} MiB`, load: { migrations: 1, pages: MOST * mib * PAGES_OF_MIB } }];
}

function atOnceOf({ what, load }: Planned, samples: readonly ManySample[]): AtOnce {
  const figures = Object.fromEntries(KEYS.map((key) => [key, figureOf(samples.map((sample) => sample[key]))]));
  return { what, load, figures: figures as Record<keyof ManySample, Figure>, samples };
}

/** Half as large, and again, until the machine can hold all guests twice. */
function sizeThatFits(wantedMib: number, say: Context['say']): number {
  const availableMib = availableMemory() / MIB;
  let mib = wantedMib;
  while (mib > 1 && 2 * MOST * mib + SPARE_MIB > availableMib) mib /= 2;
  if (mib < wantedMib)
    say(
      `guests of ${mib} MiB and not ${wantedMib}: ${MOST} on both sides, and ${availableMib.toFixed(0)} MiB are free`,
    );
  return mib;
}

function manyTable(rows: readonly AtOnce[]): string {
  const [one, whole] = [rows[0], rows.at(-1)];
  const over = (row: AtOnce, base: AtOnce | undefined): string =>
    (row.figures.megabytesPerSecond.median / (base ?? row).figures.megabytesPerSecond.median).toFixed(2);
  const mib = (figure: Figure): string => `${(figure.median / MIB).toFixed(0)} MiB`;
  return table(
    [
      'at once',
      'together',
      '/ one alone',
      '/ one as large',
      'first, last whole',
      'Starts',
      'source agent',
      'destination agent',
      'CPU of both',
    ],
    rows.map((row) => [
      row.what,
      `${row.figures.megabytesPerSecond.median.toFixed(0)} MB/s`,
      over(row, one),
      over(row, whole),
      `${row.figures.firstSeconds.median.toFixed(2)}, ${row.figures.seconds.median.toFixed(2)} s`,
      `${row.figures.startMs.median.toFixed(0)} ms`,
      mib(row.figures.sourceBytes),
      mib(row.figures.destinationBytes),
      `${row.figures.sourceCpuS.median.toFixed(1)} + ${row.figures.destinationCpuS.median.toFixed(1)} s`,
    ]),
  );
}

function barsOf(rows: readonly AtOnce[]): Partial<Record<BarName, number>> {
  const rateOf = (migrations: number): number | undefined =>
    rows.find(({ load }) => load.migrations === migrations)?.figures.megabytesPerSecond.median;
  const [one, most] = [rateOf(1), rateOf(MOST)];
  return one === undefined || most === undefined ? {} : { many16: most / one };
}

async function measureAll(context: Context, mib: number): Promise<readonly AtOnce[]> {
  const server = await startPageServer(MOST * mib * PAGES_OF_MIB);
  context.cleanup(async () => void (await server.program.stop()));
  const measured = planOf(context.size, mib).map((planned): [Planned, ManySample[]] => [planned, []]);
  for (let run = 1; run <= context.runs; run++)
    for (const [{ what, load }, samples] of measured) {
      context.say(`${what}, run ${run} of ${context.runs} ...`);
      samples.push(await measureMany(server, load, context));
    }
  return measured.map(([planned, samples]) => atOnceOf(planned, samples));
}

export const section: Section = {
  name: 'many',
  title: 'many migrations between one pair of agents',
  async run(context) {
    const mib = sizeThatFits(MIBS[context.size], context.say);
    buildFloor();
    const rows = await measureAll(context, mib);
    const drawn = rows.slice(0, AT_ONCE[context.size].length).map(({ load, figures }) => ({
      migrations: load.migrations,
      megabytesPerSecond: figures.megabytesPerSecond,
      seconds: figures.seconds,
    }));
    return {
      table: manyTable(rows),
      bars: barsOf(rows),
      data: { mib, rows },
      charts: [{ file: 'many.svg', svg: manyChart(mib, drawn) }],
    };
  },
};
