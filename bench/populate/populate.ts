/** The program that populates (bench/floor/populate.c), and what it said. */
import { join } from 'node:path';
import { Program } from '../../e2e/lib/processes.ts';
import { BUILD, LOOPBACK } from '../lib/floor.ts';
import { figureOf, type Figure } from '../lib/rows.ts';

const POPULATE_MS = 120_000;

/** The first three on memfd, the others on guest_memfd, as far as the kernel has them. */
export const POPULATE_CALLS = ['copy', 'write', 'writeContinue', 'guestMemcpy', 'guestWrite'] as const;
export type PopulateCall = (typeof POPULATE_CALLS)[number];

export const CALL_TITLES: Readonly<Record<PopulateCall, string>> = {
  copy: 'UFFDIO_COPY',
  write: 'write()',
  writeContinue: 'write()+CONTINUE',
  guestMemcpy: 'guest_memfd memcpy()',
  guestWrite: 'guest_memfd write()',
};

export interface Populated {
  readonly call: PopulateCall;
  /** Given to the kernel in one call. */
  readonly pieceBytes: number;
  readonly ms: number;
}

/** A call that this kernel does not have. */
export interface MissingCall {
  readonly call: PopulateCall;
  readonly why: string;
}

export interface PopulateRun {
  readonly populated: readonly Populated[];
  readonly missing: readonly MissingCall[];
}

/** Each call with each size of a piece, in turn. */
export async function populate(mib: number, piecesKib: readonly number[]): Promise<PopulateRun> {
  const program = new Program('populate', LOOPBACK, [join(BUILD, 'populate'), String(mib), ...piecesKib.map(String)]);
  const timer = setTimeout(() => program.signal('SIGKILL'), POPULATE_MS);
  const code = await program.exited.finally(() => clearTimeout(timer));
  if (code !== 0) throw new Error(`populate exited with ${code} (budget ${POPULATE_MS} ms): ${program.stderr}`);
  const call = (line: Program['lines'][number]): PopulateCall => line['call'] as PopulateCall;
  return {
    populated: program.lines
      .filter((line) => line['event'] === 'populated')
      .map((line) => ({ call: call(line), pieceBytes: Number(line['pieceBytes']), ms: Number(line['ms']) })),
    missing: program.lines
      .filter((line) => line['event'] === 'missing')
      .map((line) => ({ call: call(line), why: String(line['why']) })),
  };
}

export interface PopulateRow {
  readonly pieceBytes: number;
  readonly ms: Readonly<Partial<Record<PopulateCall, Figure>>>;
  /** Medians, over UFFDIO_COPY in pieces of the same size. */
  readonly overCopy: Readonly<Partial<Record<PopulateCall, number>>>;
}

export function rowsOf(all: readonly Populated[]): readonly PopulateRow[] {
  const sizes = [...new Set(all.map((p) => p.pieceBytes))].toSorted((a, b) => a - b);
  return sizes.map((pieceBytes) => {
    const of = (call: PopulateCall): readonly number[] =>
      all.filter((p) => p.pieceBytes === pieceBytes && p.call === call).map((p) => p.ms);
    const had = POPULATE_CALLS.filter((call) => of(call).length > 0);
    const ms = Object.fromEntries(had.map((call) => [call, figureOf(of(call))]));
    const copyMs = ms['copy']?.median ?? Number.NaN;
    const overCopy = Object.fromEntries(Object.entries(ms).map(([call, figure]) => [call, figure.median / copyMs]));
    return { pieceBytes, ms, overCopy };
  });
}
