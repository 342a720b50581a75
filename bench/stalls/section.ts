/** What a touch of a missing page waits for it, by the touching thread's own clock. */
import { buildFloor, startPageServer, type Filler } from '../lib/floor.ts';
import { Product } from '../lib/product.ts';
import { rowsOf, type Measure } from '../lib/rows.ts';
import type { Context, Section, SizeName } from '../lib/section.ts';
import { comparisonTable } from '../lib/table.ts';
import { touchesOf, walk, type Sizes, type Walks } from './walks.ts';

/**
 * 512 MiB even where few pages are touched: prefetch may run through the lower half of it before the pause is through without coming near a page
 * that is measured.
 */
const WALK_PAGES = 131_072;

const SIZES: Readonly<Record<SizeName, Sizes>> = {
  full: { walkPages: WALK_PAGES, touches: { warmUp: 2000, noGap: 8000, gap200: 4000, eight: 16_000 } },
  quick: { walkPages: WALK_PAGES, touches: { warmUp: 1000, noGap: 4000, gap200: 2000, eight: 8000 } },
  smoke: { walkPages: WALK_PAGES, touches: { warmUp: 50, noGap: 200, gap200: 100, eight: 400 } },
};

/** A touch that a neighbour's fault has brought along would be no demand fault. */
const ALONE = ['--fault-window-pages', '1'];

export const MEASURES: readonly Measure<Walks>[] = [
  { name: 'stallP50NoGap', what: 'fault stall p50, 1 outstanding, no gap', unit: 'us', of: (w) => w.noGap.p50Us },
  { name: 'stallP99NoGap', what: 'fault stall p99, 1 outstanding, no gap', unit: 'us', of: (w) => w.noGap.p99Us },
  { name: 'stallP50Gap200', what: 'fault stall p50, 1 outstanding, 200 us gap', unit: 'us', of: (w) => w.gap200.p50Us },
  { name: 'stallP99Gap200', what: 'fault stall p99, 1 outstanding, 200 us gap', unit: 'us', of: (w) => w.gap200.p99Us },
  { name: 'stallP50Of8', what: 'fault stall p50, 8 outstanding', unit: 'us', of: (w) => w.eight.p50Us },
  { name: 'stallP99Of8', what: 'fault stall p99, 8 outstanding', unit: 'us', of: (w) => w.eight.p99Us },
  { name: 'faultRate8', what: 'faults, 8 outstanding', unit: 'faults/s', of: (w) => w.eight.faultsPerSecond },
];

/** Faults alone: prefetch is paused as soon as the memory is served. */
async function walkProduct(product: Product, sizes: Sizes): Promise<Walks> {
  const prepared = await product.prepare(sizes.walkPages);
  const walks = await walk(prepared.filler, sizes, {
    ready: () => product.pause(prepared),
    // A page that had come by itself would be measured as a very fast fault: then the figures are worth nothing.
    finished: async () => {
      const { faults } = await product.get(prepared);
      const [fromSource, touches] = [Number(faults?.fromSource ?? 0n), touchesOf(sizes)];
      if (fromSource !== touches)
        throw new Error(
          `${fromSource} faults needed the source, ${touches} pages were touched: the stalls are not comparable`,
        );
    },
  });
  await product.end(prepared);
  return walks;
}

export const section: Section = {
  name: 'stalls',
  title: 'what a touch of a missing page waits',
  async run({ size, runs, folder, say, cleanup }: Context) {
    const sizes = SIZES[size];
    buildFloor();
    const server = await startPageServer(sizes.walkPages);
    cleanup(async () => void (await server.program.stop()));
    const product = await Product.start({ server, folder, destination: ALONE });
    cleanup(() => product.stop());
    const floor: Filler = ['floor', String(server.port)];
    const samples: { product: Walks[]; floor: Walks[] } = { product: [], floor: [] };
    for (let run = 1; run <= runs; run++) {
      say(`run ${run} of ${runs} ...`);
      samples.floor.push(await walk(floor, sizes));
      samples.product.push(await walkProduct(product, sizes));
    }
    const rows = rowsOf(MEASURES, samples.product, samples.floor);
    const ratios = Object.fromEntries(rows.map((row) => [row.name, row.ratio]));
    const { stallP50NoGap, stallP50Gap200, faultRate8 } = ratios;
    const bars = Object.fromEntries(
      Object.entries({ stallP50NoGap, stallP50Gap200, faultRate8 }).filter(([, ratio]) => ratio !== undefined),
    );
    return { table: comparisonTable(rows), bars, data: { rows } };
  },
};
