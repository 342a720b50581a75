/** 512 MiB of memory that is there already into an empty memfd, by each call that can: what a page costs before any network. */
import { join } from 'node:path';
import { Program } from '../../e2e/lib/processes.ts';
import { BUILD, LOOPBACK } from '../lib/floor.ts';
import { figureOf, type Figure } from '../lib/rows.ts';
import type { Context, Section, SizeName } from '../lib/section.ts';
import { amount, kib, table } from '../lib/table.ts';

const POPULATE_MS = 120_000;
const MIB: Readonly<Record<SizeName, number>> = { full: 512, quick: 512, smoke: 16 };

export const POPULATE_CALLS = ['copy', 'write', 'writeContinue'] as const;
export type PopulateCall = (typeof POPULATE_CALLS)[number];

export interface Populated {
  readonly call: PopulateCall;
  /** Given to the kernel in one call. */
  readonly pieceBytes: number;
  readonly ms: number;
}

export async function populate(mib: number): Promise<readonly Populated[]> {
  const program = new Program('populate', LOOPBACK, [join(BUILD, 'populate'), String(mib)]);
  const timer = setTimeout(() => program.signal('SIGKILL'), POPULATE_MS);
  const code = await program.exited.finally(() => clearTimeout(timer));
  if (code !== 0) throw new Error(`populate exited with ${code} (budget ${POPULATE_MS} ms): ${program.stderr}`);
  return program.lines.map((line) => ({
    call: line['call'] as PopulateCall,
    pieceBytes: Number(line['pieceBytes']),
    ms: Number(line['ms']),
  }));
}

export interface PopulateRow {
  readonly pieceBytes: number;
  readonly ms: Readonly<Record<PopulateCall, Figure>>;
  /** Medians, over UFFDIO_COPY in pieces of the same size. */
  readonly writeOverCopy: number;
  readonly writeContinueOverCopy: number;
}

function populateRowsOf(all: readonly Populated[]): readonly PopulateRow[] {
  const sizes = [...new Set(all.map((p) => p.pieceBytes))].toSorted((a, b) => a - b);
  return sizes.map((pieceBytes) => {
    const figure = (call: PopulateCall): Figure =>
      figureOf(all.filter((p) => p.pieceBytes === pieceBytes && p.call === call).map((p) => p.ms));
    const [copy, write, writeContinue] = POPULATE_CALLS.map(figure) as [Figure, Figure, Figure];
    return {
      pieceBytes,
      ms: { copy, write, writeContinue },
      writeOverCopy: write.median / copy.median,
      writeContinueOverCopy: writeContinue.median / copy.median,
    };
  });
}

function populateTable(mib: number, rows: readonly PopulateRow[]): string {
  return table(
    [`${mib} MiB of memfd, a call`, 'UFFDIO_COPY', 'write()', '/ COPY', 'write()+CONTINUE', '/ COPY'],
    rows.map((r) => [
      kib(r.pieceBytes),
      amount(r.ms.copy.median, 'ms'),
      amount(r.ms.write.median, 'ms'),
      r.writeOverCopy.toFixed(2),
      amount(r.ms.writeContinue.median, 'ms'),
      r.writeContinueOverCopy.toFixed(2),
    ]),
  );
}

export const section: Section = {
  name: 'populate',
  title: 'memory that is there already into an empty memfd, by each call that can',
  async run({ size, runs }: Context) {
    const all: Populated[] = [];
    for (let run = 1; run <= runs; run++) all.push(...(await populate(MIB[size])));
    const rows = populateRowsOf(all);
    return { table: populateTable(MIB[size], rows), bars: {}, data: { mib: MIB[size], rows } };
  },
};
