/** Some migrations between one pair of agents, all at the same time. */
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { MigrationPhase } from '@pagewake/proto';
import { Fill, PAGE_BYTES, type Filled } from '../lib/fill.ts';
import type { PageServer } from '../lib/floor.ts';
import { Product, type Prepared } from '../lib/product.ts';
import { ResidentPeak } from '../lib/resident.ts';
import type { Context } from '../lib/section.ts';
import { processSeconds } from '../qemu/cpu.ts';

export interface Load {
  readonly migrations: number;
  /** Of each guest; each has memory of its own. */
  readonly pages: number;
}

export interface ManySample {
  /** 10^6 bytes a second of all guests together, from the first hand-over until the last is whole. */
  readonly megabytesPerSecond: number;
  readonly seconds: number;
  /** Until the first of them is whole: how far it is from `seconds` shows how fairly they share. */
  readonly firstSeconds: number;
  /** Until `Start` of all, called at once, is answered. */
  readonly startMs: number;
  readonly sourceBytes: number;
  readonly destinationBytes: number;
  /** From the first `Start` until all are whole. */
  readonly sourceCpuS: number;
  readonly destinationCpuS: number;
}

/** Not measured: agents that have just started compile while they fill, which would make one migration look slow. */
const WARM_UP: Load = { migrations: 1, pages: 64 * 256 };

interface Run {
  readonly filled: readonly Filled[];
  readonly startMs: number;
}

async function startAll(product: Product, { migrations, pages }: Load): Promise<readonly Prepared[]> {
  const which = Array.from({ length: migrations }, (_, index) => index);
  return Promise.all(which.map((index) => product.prepare(pages, { firstPage: index * pages })));
}

async function fillAll(product: Product, load: Load, whole: () => void): Promise<Run> {
  const prepared = await startAll(product, load);
  const { pages } = load;
  const calledNs = Math.min(...prepared.map(({ startCalledNs }) => startCalledNs));
  const answeredNs = Math.max(...prepared.map(({ startCalledNs, startMs }) => startCalledNs + startMs * 1e6));
  const fills: Fill[] = [];
  try {
    for (const [index, { filler }] of prepared.entries())
      fills.push(await Fill.start({ pages, content: 'random', firstPage: index * pages, filler }));
    for (const fill of fills) fill.begin();
    const filled = await Promise.all(fills.map((fill) => fill.filled()));
    whole();
    await Promise.all(fills.map((fill) => fill.verify()));
    for (const migration of prepared) {
      const { phase } = await product.end(migration);
      if (phase !== MigrationPhase.COMPLETED)
        throw new Error(`a fill ended in phase ${MigrationPhase[phase]} instead of COMPLETED`);
    }
    return { filled, startMs: (answeredNs - calledNs) / 1e6 };
  } finally {
    await Promise.all(fills.map((fill) => fill.stop()));
  }
}

export async function measureMany(server: PageServer, load: Load, { folder, cleanup }: Context): Promise<ManySample> {
  const product = await Product.start({ server, folder: mkdtempSync(join(folder, 'agents-')) });
  cleanup(() => product.stop());
  try {
    await fillAll(product, WARM_UP.pages < load.pages ? WARM_UP : { ...WARM_UP, pages: load.pages }, () => undefined);
    const peak = new ResidentPeak(product.pids);
    const cpu = (): readonly number[] => product.pids.map(processSeconds);
    const before = cpu();
    let [after, resident]: [readonly number[], readonly number[]] = [[], []];
    const { filled, startMs } = await fillAll(product, load, () => {
      after = cpu();
      resident = peak.stop();
    });
    const beginNs = Math.min(...filled.map((f) => f.beginNs));
    const untilS = (ends: readonly number[], choose: (...values: number[]) => number): number =>
      (choose(...ends) - beginNs) / 1e9;
    const ends = filled.map(({ endNs }) => endNs);
    const seconds = untilS(ends, Math.max);
    return {
      megabytesPerSecond: (load.migrations * load.pages * PAGE_BYTES) / 1e6 / seconds,
      seconds,
      firstSeconds: untilS(ends, Math.min),
      startMs,
      sourceBytes: resident[0] ?? 0,
      destinationBytes: resident[1] ?? 0,
      sourceCpuS: (after[0] ?? 0) - (before[0] ?? 0),
      destinationCpuS: (after[1] ?? 0) - (before[1] ?? 0),
    };
  } finally {
    await product.stop();
  }
}
