/**
 * `npm run bench`: pagewake against the floor, in turn, on this machine and in the same minutes. No figure here can fail a run; what can is a page
 * that is wrong or a touch that was no demand fault.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, loadavg, release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fill, walk, type Filler } from './lib/destination.ts';
import { buildFloor, populate, startPageServer, type Populated } from './lib/floor.ts';
import { parseOptions, USAGE, type BenchOptions, type Sizes } from './lib/options.ts';
import { Product } from './lib/product.ts';
import { populateRowsOf, rowsOf, type Sample } from './lib/rows.ts';
import { comparisonTable, populateTable } from './lib/table.ts';

/** A minute's load above which somebody else is using the machine. */
const QUIET_LOAD = 1;

const say = (text: string): void => void process.stdout.write(`${text}\n`);

/** What has to be ended, last first; also when a signal comes. */
const cleanup: (() => void | Promise<void>)[] = [];

async function cleanUp(): Promise<void> {
  for (const step of cleanup.splice(0).toReversed()) await step();
}

interface Samples {
  readonly product: Sample[];
  readonly floor: Sample[];
  readonly populated: (readonly Populated[])[];
}

async function measure(sizes: Sizes): Promise<Samples> {
  const folder = mkdtempSync(join(tmpdir(), 'pw-bench-'));
  cleanup.push(() => rmSync(folder, { recursive: true, force: true }));
  const server = await startPageServer(Math.max(sizes.walkPages, sizes.fillPages));
  cleanup.push(async () => void (await server.program.stop()));
  const product = await Product.start(server, folder);
  cleanup.push(() => product.stop());

  const floor: Filler = ['floor', String(server.port)];
  const samples: Samples = { product: [], floor: [], populated: [] };
  for (let run = 1; run <= sizes.runs; run++) {
    say(`run ${run} of ${sizes.runs} ...`);
    // The same work of both sides stands side by side, so that what disturbs one is likely to disturb the other.
    const floorWalks = await walk(floor, sizes);
    const productWalks = await product.walk(sizes);
    const floorBulk = await fill(floor, sizes);
    const productBulk = await product.fill(sizes);
    samples.floor.push({ walks: floorWalks, bulkRandom: floorBulk });
    samples.product.push({ walks: productWalks, bulkRandom: productBulk });
    samples.populated.push(await populate(sizes.populateMib));
  }
  return samples;
}

async function bench({ sizes, json }: BenchOptions): Promise<void> {
  const machine = {
    cpus: availableParallelism(),
    kernel: release(),
    node: process.version,
    loadBefore: loadavg()[0] ?? 0,
  };
  say(`${machine.cpus} CPUs, Linux ${machine.kernel}, Node ${machine.node}, load ${machine.loadBefore.toFixed(2)}`);
  if (machine.loadBefore > QUIET_LOAD)
    say('something else runs on this machine: believe the ratios more than the figures');
  buildFloor();
  const { product, floor, populated } = await measure(sizes);
  const rows = rowsOf(product, floor);
  const populateRows = populateRowsOf(populated);
  say(`\n${comparisonTable(rows)}\n\n${populateTable(sizes.populateMib, populateRows)}`);
  if (sizes.name === 'smoke') say('\nsmoke: these sizes say nothing about speed');
  if (json === undefined) return;
  const ratios = Object.fromEntries(rows.map((r) => [r.name, r.ratio]));
  const report = { size: sizes.name, runs: sizes.runs, machine, ratios, rows, populate: populateRows };
  writeFileSync(json, `${JSON.stringify(report, undefined, 2)}\n`);
}

function optionsOrExit(): BenchOptions | undefined {
  try {
    const options = parseOptions(process.argv.slice(2));
    if (options !== 'help') return options;
    process.stdout.write(USAGE);
  } catch (error) {
    process.stderr.write(`npm run bench: ${error instanceof Error ? error.message : String(error)}\n\n${USAGE}`);
    process.exitCode = 2;
  }
  return undefined;
}

const options = optionsOrExit();
if (options) {
  let stopped = false;
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => {
      stopped = true;
      void cleanUp().finally(() => process.exit(130));
    });
  try {
    await bench(options);
  } catch (error) {
    // What fails because everything is being ended is no news.
    if (!stopped) process.stderr.write(`npm run bench: ${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 1;
  } finally {
    await cleanUp();
  }
}
