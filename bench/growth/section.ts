/** How time and the agents' memory grow with the guest's memory. */
import { availableMemory } from 'node:process';
import type { BarName } from '../lib/bars.ts';
import { buildFloor, startPageServer, type Content } from '../lib/floor.ts';
import { figureOf, type Figure } from '../lib/rows.ts';
import type { Context, Section, SizeName } from '../lib/section.ts';
import { table } from '../lib/table.ts';
import { growthChart } from './figure.ts';
import { measureGuest, PAGES_OF_MIB, type GuestSample } from './guest.ts';

const MIB = 2 ** 20;
const MIB_A_GIB = 1024;
/** What two agents may have however small the guest is. */
const FREE_MIB = 150;
/** For the programs beside the two copies of the guest. */
const SPARE_MIB = 1536;

const MIBS: Readonly<Record<SizeName, readonly number[]>> = {
  full: [256, 1024, 4096, 8192],
  quick: [1024, 8192],
  smoke: [16],
};

/** 8 GiB of random memory, twice, take longer to make and to look at than a quick run may: there four fifths of every guest are holes. */
const CONTENTS: Readonly<Record<SizeName, Content>> = { full: 'random', quick: 'holes', smoke: 'random' };

interface Grown {
  readonly mib: number;
  readonly figures: Readonly<Record<keyof GuestSample, Figure>>;
  readonly samples: readonly GuestSample[];
}

const KEYS = [
  'seconds',
  'sourceBytes',
  'destinationBytes',
  'sourceStartMs',
  'destinationStartMs',
  'startMs',
  'readyMs',
] as const satisfies readonly (keyof GuestSample)[];

function grownOf(mib: number, samples: readonly GuestSample[]): Grown {
  const figures = Object.fromEntries(KEYS.map((key) => [key, figureOf(samples.map((sample) => sample[key]))]));
  return { mib, figures: figures as Record<keyof GuestSample, Figure>, samples };
}

/** Source and destination are on one machine here, so a guest is there twice. */
function sizesThatFit({ size, say }: Context): readonly number[] {
  const availableMib = availableMemory() / MIB;
  return MIBS[size].filter((mib) => {
    const neededMib = 2 * mib + SPARE_MIB;
    if (neededMib <= availableMib) return true;
    say(
      `${mib} MiB is left out: two copies and the programs need ${neededMib} MiB, ${availableMib.toFixed(0)} are free`,
    );
    return false;
  });
}

/** Both agents' memory together, less what they may have anyway; for each page of the guest. */
const bytesPerPage = ({ mib, figures }: Grown): number =>
  (figures.sourceBytes.median + figures.destinationBytes.median - FREE_MIB * MIB) / (mib * PAGES_OF_MIB);

function barsOf(grown: readonly Grown[]): Partial<Record<BarName, number>> {
  const bars: Partial<Record<BarName, number>> = {};
  const of = (gib: number): Grown | undefined => grown.find(({ mib }) => mib === gib * MIB_A_GIB);
  const [one, eight] = [of(1), of(8)];
  if (eight) bars.bytesPerGuestPage = bytesPerPage(eight);
  if (one && eight) bars.growth1to8 = eight.figures.seconds.median / (8 * one.figures.seconds.median);
  return bars;
}

function growthTable(grown: readonly Grown[]): string {
  const mib = (figure: Figure): string => `${(figure.median / MIB).toFixed(0)} MiB`;
  const ms = (figure: Figure): string => `${figure.median.toFixed(0)} ms`;
  return table(
    [
      'guest',
      'whole',
      'a GiB',
      'source agent',
      'destination agent',
      'both – 150 MiB, a page',
      'start, each',
      'Start',
      'until served',
    ],
    grown.map((row) => [
      `${row.mib} MiB`,
      `${row.figures.seconds.median.toFixed(2)} s`,
      `${((row.figures.seconds.median * MIB_A_GIB) / row.mib).toFixed(2)} s`,
      mib(row.figures.sourceBytes),
      mib(row.figures.destinationBytes),
      `${bytesPerPage(row).toFixed(0)} B`,
      `${row.figures.sourceStartMs.median.toFixed(0)}, ${ms(row.figures.destinationStartMs)}`,
      ms(row.figures.startMs),
      ms(row.figures.readyMs),
    ]),
  );
}

const chartOf = (grown: readonly Grown[]): string =>
  growthChart(
    grown.map(({ mib, figures }) => ({
      memoryMib: mib,
      wholeS: figures.seconds.median + figures.readyMs.median / 1000,
      startS: figures.readyMs.median / 1000,
      sourceMib: figures.sourceBytes.median / MIB,
      destinationMib: figures.destinationBytes.median / MIB,
    })),
  );

export const section: Section = {
  name: 'growth',
  title: 'what a larger guest costs',
  async run(context) {
    const mibs = sizesThatFit(context);
    const largest = mibs.at(-1);
    if (largest === undefined) throw new Error('there is not even memory for the smallest guest');
    buildFloor();
    // One memory for all: a smaller guest is its beginning.
    const content = CONTENTS[context.size];
    const server = await startPageServer(largest * PAGES_OF_MIB, { content });
    context.cleanup(async () => void (await server.program.stop()));
    const samples = new Map<number, GuestSample[]>(mibs.map((mib) => [mib, []]));
    for (let run = 1; run <= context.runs; run++)
      for (const [mib, ofMib] of samples) {
        context.say(`${mib} MiB, run ${run} of ${context.runs} ...`);
        ofMib.push(await measureGuest(server, mib * PAGES_OF_MIB, content, context));
      }
    const grown = [...samples].map(([mib, ofMib]) => grownOf(mib, ofMib));
    if (content === 'holes') context.say('a fifth of each guest is random memory, the rest are holes');
    return {
      table: growthTable(grown),
      bars: barsOf(grown),
      data: { freeMib: FREE_MIB, content, sizes: grown },
      charts: [{ file: 'growth.svg', svg: chartOf(grown) }],
    };
  },
};
