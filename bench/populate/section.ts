/** Memory that is there already into empty guest memory, by each call that can: what a page costs before any network. */
import { buildFloor } from '../lib/floor.ts';
import type { Context, Section, SizeName } from '../lib/section.ts';
import { amount, kib, table, type Cells } from '../lib/table.ts';
import { choicesOf, choicesTable } from './choices.ts';
import { populateChart } from './figure.ts';
import { CALL_TITLES, FILES, populate, rowsOf, type FileKind, type PopulateRow, type PopulateRun } from './populate.ts';

interface Sizes {
  readonly mib: number;
  /** Given to the kernel in one call. */
  readonly piecesKib: readonly number[];
}

const SIZES: Readonly<Record<SizeName, Sizes>> = {
  full: { mib: 512, piecesKib: [4, 16, 64, 256, 1024, 2048] },
  quick: { mib: 512, piecesKib: [4, 64, 2048] },
  smoke: { mib: 16, piecesKib: [4, 64, 2048] },
};

/** What the authors of the guest_memfd series said of 512 MiB, on a machine of their own: nothing here may be set against it but the order. */
const PUBLISHED = 'published for 512 MiB, on another machine: UFFDIO_COPY 237 ms, write() 202 ms (0.85)';

/** Of one kind of file, with the calls that this kernel has; undefined where it has none. */
function tableOf(mib: number, rows: readonly PopulateRow[], file: FileKind): string | undefined {
  const had = FILES[file].filter((call) => rows.some(({ ms }) => ms[call] !== undefined));
  if (had.length === 0) return undefined;
  const copy = FILES[file][0];
  const withCopy = had.some((call) => call === copy);
  const cells = ({ ms, overCopy }: PopulateRow, call: (typeof had)[number]): Cells => {
    const took = amount(ms[call]?.median ?? Number.NaN, 'ms');
    return call === copy || !withCopy ? [took] : [took, (overCopy[call] ?? Number.NaN).toFixed(2)];
  };
  return table(
    [
      `${mib} MiB ${file}, a call`,
      ...had.flatMap((call) => (call === copy || !withCopy ? [CALL_TITLES[call]] : [CALL_TITLES[call], '/ COPY'])),
    ],
    rows.map((row) => [kib(row.pieceBytes), ...had.flatMap((call) => cells(row, call))]),
  );
}

export const section: Section = {
  name: 'populate',
  title: 'memory that is there already into empty guest memory, by each call that can',
  async run({ size, runs }: Context) {
    const { mib, piecesKib } = SIZES[size];
    buildFloor();
    const done: PopulateRun[] = [];
    for (let run = 1; run <= runs; run++) done.push(await populate(mib, piecesKib));
    const rows = rowsOf(done.flatMap(({ populated }) => populated));
    const missing = done[0]?.missing ?? [];
    const tables = [tableOf(mib, rows, 'memfd'), tableOf(mib, rows, 'guest_memfd')].filter(
      (text) => text !== undefined,
    );
    const notes = [
      ...missing.map(({ call, why }) => `guest_memfd ${CALL_TITLES[call]}: not on this kernel (${why})`),
      PUBLISHED,
    ];
    return {
      table: [...[...tables, choicesTable(rows)].flatMap((text) => [text, '']), ...notes].join('\n'),
      bars: {},
      data: { mib, rows, missing, choices: choicesOf(rows) },
      charts: [{ file: 'populate.svg', svg: populateChart(mib, rows) }],
    };
  },
};
