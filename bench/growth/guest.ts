/** One guest of a size, between agents of its own: how long, and how much memory the agents need for it. */
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { MigrationPhase } from '@pagewake/proto';
import { Fill, PAGE_BYTES, seconds } from '../lib/fill.ts';
import type { Content, PageServer } from '../lib/floor.ts';
import { Product, type Prepared } from '../lib/product.ts';
import { ResidentPeak } from '../lib/resident.ts';
import type { Context } from '../lib/section.ts';

export const PAGES_OF_MIB = 2 ** 20 / PAGE_BYTES;

/** Not measured: agents that have just started compile while they fill, which would make small guests look slow and growth look good. */
const WARM_UP_PAGES = 64 * PAGES_OF_MIB;

export interface GuestSample {
  /** From the hand-over of its memory to the last page. */
  readonly seconds: number;
  /** At the peak, from the agents' beginning on; what counts is in lib/resident.ts. */
  readonly sourceBytes: number;
  readonly destinationBytes: number;
  /** From a process's beginning until it listens. */
  readonly sourceStartMs: number;
  readonly destinationStartMs: number;
  /** `Start` until it is answered, and with the hand-over until faults are served. */
  readonly startMs: number;
  readonly readyMs: number;
}

interface Filled {
  readonly prepared: Prepared;
  readonly seconds: number;
  readonly readyMs: number;
}

/** @param whole while the guest's memory is still there */
async function fillOne(product: Product, pages: number, content: Content, whole: () => void): Promise<Filled> {
  const prepared = await product.prepare(pages);
  const fill = await Fill.start({ pages, content, filler: prepared.filler });
  try {
    fill.begin();
    const filled = await fill.filled();
    whole();
    await fill.verify();
    const { phase } = await product.end(prepared);
    if (phase !== MigrationPhase.COMPLETED)
      throw new Error(`the fill ended in phase ${MigrationPhase[phase]} instead of COMPLETED`);
    // Between the two the harness starts the program that hands over, which is no part of it.
    const readyMs = prepared.startMs + (filled.servedNs - filled.beginNs) / 1e6;
    return { prepared, seconds: seconds(filled), readyMs };
  } finally {
    await fill.stop();
  }
}

export async function measureGuest(
  server: PageServer,
  pages: number,
  content: Content,
  { folder, cleanup }: Context,
): Promise<GuestSample> {
  const product = await Product.start({ server, folder: mkdtempSync(join(folder, 'agents-')) });
  cleanup(() => product.stop());
  try {
    const peak = new ResidentPeak(product.pids);
    await fillOne(product, Math.min(pages, WARM_UP_PAGES), content, () => undefined);
    let resident: readonly number[] = [];
    const filled = await fillOne(product, pages, content, () => (resident = peak.stop()));
    const [sourceBytes = 0, destinationBytes = 0] = resident;
    const [sourceStartMs, destinationStartMs] = product.startMs;
    return {
      seconds: filled.seconds,
      sourceBytes,
      destinationBytes,
      sourceStartMs,
      destinationStartMs,
      startMs: filled.prepared.startMs,
      readyMs: filled.readyMs,
    };
  } finally {
    await product.stop();
  }
}
