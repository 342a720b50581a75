/** The rows of a fill, and their table. */
import type { BarName } from '../lib/bars.ts';
import { rowsOf, type Measure, type Row } from '../lib/rows.ts';
import { table } from '../lib/table.ts';
import type { Described, Kind } from './contents.ts';
import type { BulkSample } from './fills.ts';

export interface BulkRow {
  readonly content: Kind['content'];
  readonly what: string;
  /** On loopback only. */
  readonly bar?: BarName;
  readonly rate: Row;
  readonly cpuOfSource: Row;
  readonly cpuOfDestination: Row;
  readonly wireBytes: Row;
}

const MEASURES = {
  rate: { what: 'guest memory filled', unit: 'MB/s', of: (s) => s.megabytesPerSecond },
  cpuOfSource: { what: 'CPU of the source’s side, a GiB', unit: 's', of: (s) => s.cpuOfSource },
  cpuOfDestination: { what: 'CPU of the destination’s side, a GiB', unit: 's', of: (s) => s.cpuOfDestination },
  wireBytes: { what: 'bytes on the wire, a byte of guest memory', unit: '', of: (s) => s.wireBytes },
} as const satisfies Record<string, Omit<Measure<BulkSample>, 'name'>>;

export function rowOf(
  { content, what, bar }: Kind,
  link: string,
  samples: { readonly product: readonly BulkSample[]; readonly floor: readonly BulkSample[] },
): BulkRow {
  const row = (name: keyof typeof MEASURES): Row => {
    const [made] = rowsOf([{ name, ...MEASURES[name] }], samples.product, samples.floor);
    if (!made) throw new RangeError(`no row ${name}`);
    return made;
  };
  return {
    content,
    what: `${what}${link}`,
    ...(bar === undefined || link !== '' ? {} : { bar }),
    rate: row('rate'),
    cpuOfSource: row('cpuOfSource'),
    cpuOfDestination: row('cpuOfDestination'),
    wireBytes: row('wireBytes'),
  };
}

const cpu = ({ cpuOfSource, cpuOfDestination }: BulkRow, side: 'product' | 'floor'): string =>
  `${cpuOfSource[side].median.toFixed(2)} + ${cpuOfDestination[side].median.toFixed(2)} s`;

export function bulkTable(rows: readonly BulkRow[], contents: Readonly<Record<string, Described>>): string {
  const head = [
    'fill, memory is',
    'zero pages',
    'LZ4',
    'product',
    'on the wire',
    'floor',
    'product / floor',
    'CPU a GiB',
    'floor’s',
  ];
  return table(
    head,
    rows.map((row) => [
      row.what,
      `${((contents[row.content]?.zeroShare ?? 0) * 100).toFixed(0)} %`,
      `${(contents[row.content]?.lz4Ratio ?? 1).toFixed(2)}x`,
      `${row.rate.product.median.toFixed(0)} MB/s`,
      `${(row.wireBytes.product.median * 100).toFixed(0)} %`,
      `${row.rate.floor.median.toFixed(0)} MB/s`,
      row.rate.ratio.toFixed(2),
      cpu(row, 'product'),
      cpu(row, 'floor'),
    ]),
  );
}
