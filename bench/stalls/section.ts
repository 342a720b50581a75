/** What a touch of a missing page waits, by the touching thread's own clock. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { BarName } from '../lib/bars.ts';
import { buildFloor, startPageServer } from '../lib/floor.ts';
import { Product } from '../lib/product.ts';
import type { Context, Section } from '../lib/section.ts';
import { SIZES, type Condition, type Situation } from './conditions.ts';
import { stallsChart } from './figure.ts';
import { stallRowsOf, stallTable, type StallRow } from './rows.ts';
import { floorSide, productSide, type Walks } from './sides.ts';

/** A touch that a neighbour's fault has brought along would be no demand fault. */
const ALONE = ['--fault-window-pages', '1'];
/** Longer than a gap, so that a lane is awake when the next fault comes. */
const SPIN_US = 500;
const spinning = (us: number): readonly string[] => ['--fault-spin-us', String(us)];

function barsOf(rows: readonly StallRow[]): Readonly<Partial<Record<BarName, number>>> {
  const row = (situation: Situation, condition: Condition['name']): StallRow => {
    const found = rows.find((r) => r.situation === situation && r.condition === condition);
    if (!found) throw new RangeError(`no row ${situation}, ${condition}`);
    return found;
  };
  return {
    stallP50NoGap: row('idle', 'noGap').ratios.p50Us,
    stallP50Gap200: row('idle', 'gap200').ratios.p50Us,
    stallP50NoGapSpin: row('spin', 'noGap').ratios.p50Us,
    stallP50Gap200Spin: row('spin', 'gap200').ratios.p50Us,
    stallP99UnderBulk: row('bulk', 'noGap').ratios.p99Us,
    bulkUnderStallMBs: row('bulk', 'noGap').product.bulkMegabytesPerSecond.median,
    faultRate8: row('idle', 'eight').ratios.faultsPerSecond,
  };
}

export const section: Section = {
  name: 'stalls',
  title: 'what a touch of a missing page waits',
  async run({ size, runs, folder, say, cleanup }: Context) {
    const sizes = SIZES[size];
    buildFloor();
    const server = await startPageServer(Math.max(sizes.idlePages, sizes.bulkPages));
    cleanup(async () => void (await server.program.stop()));
    const start = async (spinUs: number): Promise<Product> => {
      const flags = spinning(spinUs);
      const own = join(folder, `spin-${spinUs}`);
      mkdirSync(own);
      const product = await Product.start({ server, folder: own, source: flags, destination: [...flags, ...ALONE] });
      cleanup(() => product.stop());
      return product;
    };
    const floor = floorSide(server);
    const product = productSide(await start(0));
    const awake = productSide(await start(SPIN_US));
    const samples: Record<Situation, { product: Walks; floor: Walks }[]> = { idle: [], spin: [], bulk: [] };
    for (let run = 1; run <= runs; run++) {
      say(`run ${run} of ${runs} ...`);
      // The same work of both sides stands side by side, so that what disturbs one is likely to disturb the other.
      const idle = { floor: await floor.idle(sizes), product: await product.idle(sizes) };
      samples.idle.push(idle);
      samples.spin.push({ floor: idle.floor, product: await awake.idle(sizes) });
      samples.bulk.push({ floor: await floor.underBulk(sizes), product: await product.underBulk(sizes) });
    }
    const rows = stallRowsOf(samples);
    return {
      table: stallTable(rows),
      bars: barsOf(rows),
      data: { spinUs: SPIN_US, rows, samples },
      charts: [{ file: 'stalls.svg', svg: stallsChart(rows, SPIN_US) }],
    };
  },
};
