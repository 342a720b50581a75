/** The program that populates (bench/floor/populate.c), and what it said. */
import { join } from 'node:path';
import { Program } from '../../e2e/lib/processes.ts';
import { BUILD, LOOPBACK } from '../lib/floor.ts';
import { figureOf, type Figure } from '../lib/rows.ts';

/** A kernel that is emulated needs eight times what it needs otherwise, for eleven files at each size. */
const POPULATE_MS = 300_000;

/** Each kind of file, with the calls that can fill it; those that are on every kernel first. */
export const FILES = {
  memfd: ['copy', 'write', 'writeContinue'],
  guest_memfd: ['guestCopy', 'guestWrite', 'guestWriteContinue', 'guestMemcpy'],
} as const;
export type FileKind = keyof typeof FILES;
export type PopulateCall = (typeof FILES)[FileKind][number];
export const POPULATE_CALLS: readonly PopulateCall[] = [...FILES.memfd, ...FILES.guest_memfd];

export const CALL_TITLES: Readonly<Record<PopulateCall, string>> = {
  copy: 'UFFDIO_COPY',
  write: 'write()',
  writeContinue: 'write()+CONTINUE',
  guestCopy: 'UFFDIO_COPY',
  guestWrite: 'write()',
  guestWriteContinue: 'write()+CONTINUE',
  guestMemcpy: 'memcpy()',
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
  /** Medians, over UFFDIO_COPY into the same kind of file in pieces of the same size; nothing where the kernel has no COPY there. */
  readonly overCopy: Readonly<Partial<Record<PopulateCall, number>>>;
}

export function rowsOf(all: readonly Populated[]): readonly PopulateRow[] {
  const sizes = [...new Set(all.map((p) => p.pieceBytes))].toSorted((a, b) => a - b);
  return sizes.map((pieceBytes) => {
    const ms: Partial<Record<PopulateCall, Figure>> = {};
    const overCopy: Partial<Record<PopulateCall, number>> = {};
    for (const call of POPULATE_CALLS) {
      const runs = all.filter((p) => p.pieceBytes === pieceBytes && p.call === call).map((p) => p.ms);
      if (runs.length > 0) ms[call] = figureOf(runs);
    }
    for (const calls of Object.values(FILES)) {
      const copyMs = ms[calls[0]]?.median;
      if (copyMs === undefined) continue;
      for (const call of calls) {
        const figure = ms[call];
        if (figure) overCopy[call] = figure.median / copyMs;
      }
    }
    return { pieceBytes, ms, overCopy };
  });
}
