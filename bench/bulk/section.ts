/** How fast memory comes that nobody touches. */
import { MigrationPhase } from '@pagewake/proto';
import { buildFloor, startDestinationProgram, startPageServer, type Filler } from '../lib/floor.ts';
import { Product } from '../lib/product.ts';
import { rowsOf } from '../lib/rows.ts';
import type { Context, Section, SizeName } from '../lib/section.ts';
import { comparisonTable } from '../lib/table.ts';

const FILL_MS = 180_000;
/** A power of two. */
const PAGES: Readonly<Record<SizeName, number>> = { full: 131_072, quick: 131_072, smoke: 8192 };

/** @returns MB/s, 10^6 bytes, from asking for the memory to the last byte of it */
async function fill(filler: Filler, pages: number): Promise<number> {
  const program = startDestinationProgram([String(pages), ...filler, 'fill']);
  try {
    const line = await program.waitFor('the memory to be whole', (l) => l['event'] === 'filled', FILL_MS);
    return Number(line['megabytesPerSecond']);
  } finally {
    await program.stop();
  }
}

async function fillProduct(product: Product, pages: number): Promise<number> {
  const prepared = await product.prepare(pages);
  const megabytesPerSecond = await fill(prepared.filler, pages);
  const { phase } = await product.end(prepared);
  if (phase !== MigrationPhase.COMPLETED)
    throw new Error(`the bulk fill ended in phase ${MigrationPhase[phase]} instead of COMPLETED`);
  return megabytesPerSecond;
}

export const section: Section = {
  name: 'bulk',
  title: 'memory that nobody touches',
  async run({ size, runs, folder, say, cleanup }: Context) {
    const pages = PAGES[size];
    buildFloor();
    const server = await startPageServer(pages);
    cleanup(async () => void (await server.program.stop()));
    const product = await Product.start({ server, folder });
    cleanup(() => product.stop());
    const samples: { product: number[]; floor: number[] } = { product: [], floor: [] };
    for (let run = 1; run <= runs; run++) {
      say(`run ${run} of ${runs} ...`);
      samples.floor.push(await fill(['floor', String(server.port)], pages));
      samples.product.push(await fillProduct(product, pages));
    }
    const random = { name: 'bulkRandom', what: 'bulk fill, random memory', unit: 'MB/s', of: (rate: number) => rate };
    const rows = rowsOf([random], samples.product, samples.floor);
    const bulkRandom = rows[0]?.ratio;
    return { table: comparisonTable(rows), bars: bulkRandom === undefined ? {} : { bulkRandom }, data: { rows } };
  },
};
