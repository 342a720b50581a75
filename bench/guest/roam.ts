/**
 * How many pages a guest touches before its memory is whole, and for how many of them a request had to go to the source: by a program that goes through
 * memory once, so that every touch is a page's first, while agents with their defaults bring it.
 */
import { join } from 'node:path';
import { MigrationPhase } from '@pagewake/proto';
import { Program } from '../../e2e/lib/processes.ts';
import { BUILD, LOOPBACK } from '../lib/floor.ts';
import type { Product } from '../lib/product.ts';
import type { Order } from './migration.ts';

const ROAM_MS = 90_000;
/** From the moment at which the agent's clock begins until the program has read `ready` and its own does: more than it ever is. */
const READY_MS = 5;

export interface Roamed {
  /** Before the memory was whole. */
  readonly touchedPages: number;
  /** Requests for a page that was touched; the neighbours that come along with one are no request of their own. */
  readonly networkFaults: number;
  /** Touches that waited for a page that prefetch, or another fault's request, had on its way. */
  readonly waitedForPrefetch: number;
  readonly ratio: number;
  readonly wholeMs: number;
  readonly stallP50Us: number;
  readonly stallP99Us: number;
}

export async function roam(product: Product, order: Order, pages: number): Promise<Roamed> {
  const prepared = await product.prepare(pages);
  const [, where] = prepared.filler;
  const program = new Program('roam', LOOPBACK, [join(BUILD, 'roam'), String(pages), where, order]);
  try {
    const line = await program.waitFor('memory that is whole', (l) => l['event'] === 'roamed', ROAM_MS);
    const { phase, faults, progress } = await product.end(prepared);
    if (phase !== MigrationPhase.COMPLETED)
      throw new Error(`a migration under a guest that touches ended in phase ${MigrationPhase[phase]}`);
    const wholeMs = progress?.fillingMs ?? 0;
    const touchedPages = touchedUntil(line['touchedByMs'] as readonly number[], wholeMs);
    const networkFaults = Number(faults?.fromSource ?? 0n);
    return {
      touchedPages,
      networkFaults,
      waitedForPrefetch: Number(faults?.fromPrefetchInFlight ?? 0n),
      ratio: networkFaults / touchedPages,
      wholeMs,
      stallP50Us: faults?.stallP50Us ?? 0,
      stallP99Us: faults?.stallP99Us ?? 0,
    };
  } finally {
    await program.stop();
  }
}

/** The program's clock begins after the agent's: at that moment by the agent's it has touched so many at least. */
function touchedUntil(touchedByMs: readonly number[], wholeMs: number): number {
  const index = Math.min(Math.floor(wholeMs) - READY_MS, touchedByMs.length) - 1;
  const touched = touchedByMs[Math.max(0, index)];
  if (touched === undefined || touched === 0) throw new Error('nothing was touched before the memory was whole');
  return touched;
}
