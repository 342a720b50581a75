/** How fast memory comes that nobody touches, by what it holds. */
import { mkdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { makeHosts, whyNoNamespaces } from '../../e2e/lib/hosts.ts';
import { Program, ROOT } from '../../e2e/lib/processes.ts';
import type { BarName } from '../lib/bars.ts';
import { buildFloor, startPageServer, type PageServer } from '../lib/floor.ts';
import { Product } from '../lib/product.ts';
import type { Context, Section, SizeName } from '../lib/section.ts';
import { describe, KINDS, type Kind } from './contents.ts';
import { bulkChart } from './figure.ts';
import { fillFloor, fillProduct, type BulkSample } from './fills.ts';
import type { GbitLine, GbitPlan } from './gbit.ts';
import { bulkTable, rowOf, type BulkRow } from './table.ts';

const PAGES_OF_MIB = 256;

interface Sizes {
  readonly pages: number;
  readonly gbitPages: number;
}

const SIZES: Readonly<Record<SizeName, Sizes>> = {
  full: { pages: 1024 * PAGES_OF_MIB, gbitPages: 512 * PAGES_OF_MIB },
  quick: { pages: 256 * PAGES_OF_MIB, gbitPages: 128 * PAGES_OF_MIB },
  smoke: { pages: 32 * PAGES_OF_MIB, gbitPages: 0 },
};
/** Not measured: it has the agents compile what every fill needs. */
const WARM_UP_PAGES = 64 * PAGES_OF_MIB;

const GBIT = join(ROOT, 'bench/bulk/gbit.ts');
const GBIT_MBIT = 1000;
const GBIT_KINDS: readonly Kind[] = KINDS.filter(({ content }) => content === 'random' || content === 'text');

interface Samples {
  readonly product: BulkSample[];
  readonly floor: BulkSample[];
}

/** Whoever reads holes through a mapping fills them: then they would be measured as the zero pages of the row above. */
async function withItsHoles(server: PageServer, measure: () => Promise<void>): Promise<void> {
  const before = statSync(server.memoryPath).blocks;
  await measure();
  const after = statSync(server.memoryPath).blocks;
  if (after !== before)
    throw new Error(`holes of the source were filled: ${before} blocks before, ${after} afterwards`);
}

/** In turn: what disturbs one is likely to disturb the other. */
async function onLoopback({ runs, folder, say, cleanup }: Context, pages: number): Promise<readonly BulkRow[]> {
  const rows: BulkRow[] = [];
  let product: Product | undefined;
  let floorOfZeros: readonly BulkSample[] = [];
  for (const kind of KINDS) {
    const { content, what } = kind;
    const server = await startPageServer(pages, { content });
    cleanup(async () => void (await server.program.stop()));
    if (product === undefined) {
      const started = await Product.start({ server, folder });
      cleanup(() => started.stop());
      product = started;
      await fillProduct(started, { server, content, pages: Math.min(pages, WARM_UP_PAGES) });
    }
    const [agents, samples]: [Product, Samples] = [product, { product: [], floor: [] }];
    const filling = { server, content, pages };
    await withItsHoles(server, async () => {
      for (let run = 1; run <= runs; run++) {
        say(`${what}, run ${run} of ${runs} ...`);
        // It reads a mapping, and sends the same whether there are zeros or holes.
        if (content !== 'holes') samples.floor.push(await fillFloor(filling));
        samples.product.push(await fillProduct(agents, filling));
      }
    });
    if (content === 'zeros') floorOfZeros = samples.floor;
    if (content === 'holes') samples.floor.push(...floorOfZeros);
    rows.push(rowOf(kind, '', samples));
    await server.program.stop();
  }
  await product?.stop();
  return rows;
}

/** Once: a link that is the bottleneck does not vary. */
async function atGbit({ size, folder, say, cleanup }: Context, pages: number): Promise<readonly BulkRow[]> {
  const reason = size === 'smoke' ? 'it takes a while' : whyNoNamespaces();
  if (reason !== undefined) {
    say(`1 Gbit/s is left out: ${reason}`);
    return [];
  }
  const hosts = makeHosts();
  cleanup(() => hosts.close());
  hosts.limitLink(GBIT_MBIT);
  say('at 1 Gbit/s ...');
  const { source, destination } = hosts;
  const contents = GBIT_KINDS.map(({ content }) => content);
  const plan: GbitPlan = { folder: join(folder, 'gbit'), pages, contents, hosts: { source, destination } };
  mkdirSync(plan.folder);
  const program = new Program('gbit', source, [process.execPath, GBIT, JSON.stringify(plan)]);
  cleanup(async () => void (await program.stop()));
  const code = await program.exited;
  if (code !== 0) throw new Error(`at 1 Gbit/s: ${program.stderr}`);
  const lines = program.lines as unknown as readonly GbitLine[];
  return GBIT_KINDS.flatMap((kind) => {
    const line = lines.find(({ content }) => content === kind.content);
    return line ? [rowOf(kind, ', 1 Gbit/s', { product: [line.product], floor: [line.floor] })] : [];
  });
}

export const section: Section = {
  name: 'bulk',
  title: 'memory that nobody touches',
  async run(context) {
    const { pages, gbitPages } = SIZES[context.size];
    buildFloor();
    const contents = Object.fromEntries(KINDS.map(({ content }) => [content, describe(content)]));
    const local = await onLoopback(context, pages);
    const gbit = await atGbit(context, gbitPages);
    const rows = [...local, ...gbit];
    const bars: Partial<Record<BarName, number>> = {};
    for (const { bar, rate } of local) if (bar !== undefined) bars[bar] = rate.ratio;
    return {
      table: bulkTable(rows, contents),
      bars,
      data: { pages, gbitPages, contents, rows },
      charts: [{ file: 'bulk.svg', svg: bulkChart(pages / PAGES_OF_MIB, local, gbit) }],
    };
  },
};
