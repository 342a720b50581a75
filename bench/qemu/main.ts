/**
 * `npm run bench:qemu`: a Linux guest in QEMU, migrated by QEMU's own post-copy and by pagewake, in turn. No figure fails the run; a page that the
 * guest found wrong does.
 */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { availableParallelism, loadavg, release } from 'node:os';
import { dirname } from 'node:path';
import { whyNoNamespaces } from '../../e2e/lib/hosts.ts';
import { SHIM, whyNoRamFiles } from '../../e2e/lib/qemu.ts';
import { qemuLab, type QemuParts } from '../../e2e/qemu/install.ts';
import { compare, reportOf, type Comparison } from './compare.ts';
import { figure } from './figure.ts';
import { parseOptions, USAGE, type QemuBenchOptions } from './options.ts';
import { run, type Run } from './run.ts';
import { comparisonTable, runLine } from './table.ts';

/** A minute's load above which somebody else is using the machine. */
const QUIET_LOAD = 1;
const PREFIX = 'npm run bench:qemu:';

const say = (text: string): void => void process.stdout.write(`${text}\n`);
const complain = (text: string): void => void process.stderr.write(`${PREFIX} ${text}\n`);

function partsOrThrow(): QemuParts {
  const lab = qemuLab();
  const reason =
    lab.reason ??
    whyNoNamespaces() ??
    whyNoRamFiles() ??
    (existsSync(SHIM) ? undefined : 'the shim is not built (npm run setup)');
  if (reason !== undefined || lab.reason !== undefined) throw new Error(reason);
  return lab.parts;
}

/** One after the other, never two at once; the ways stand side by side, so that what disturbs one is likely to disturb the others. */
async function measure({ sizes, scenarios, keep }: QemuBenchOptions, signal: AbortSignal): Promise<readonly Run[]> {
  const parts = partsOrThrow();
  const runs: Run[] = [];
  for (let round = 1; round <= sizes.runs; round++)
    for (const scenario of scenarios)
      for (const way of sizes.ways) {
        const done = await run({ parts, sizes, scenario, way, keep, signal });
        say(`${round}/${sizes.runs} ${runLine(done)}`);
        runs.push(done);
      }
  return runs;
}

function write(path: string, content: string): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content);
}

async function bench(options: QemuBenchOptions, signal: AbortSignal): Promise<void> {
  const { sizes, scenarios, json, chart } = options;
  const machine = {
    cpus: availableParallelism(),
    kernel: release(),
    node: process.version,
    loadBefore: loadavg()[0] ?? 0,
  };
  say(`${machine.cpus} CPUs, Linux ${machine.kernel}, Node ${machine.node}, load ${machine.loadBefore.toFixed(2)}`);
  if (machine.loadBefore > QUIET_LOAD)
    say('something else runs on this machine: believe the ratios more than the figures');
  const runs = await measure(options, signal);
  const comparisons: readonly Comparison[] = scenarios.map((scenario) => compare(scenario, runs));
  for (const comparison of comparisons) say(`\n${comparisonTable(comparison)}`);
  if (sizes.name === 'smoke') say('\nsmoke: these sizes say nothing about speed');
  const report = reportOf(comparisons);
  const misses = Object.fromEntries(comparisons.map((c) => [c.scenario.name, c.misses]));
  const all = { ...report, size: sizes.name, machine, misses, comparisons, runs };
  if (json !== undefined) write(json, `${JSON.stringify(all, undefined, 2)}\n`);
  if (chart !== undefined) write(chart, figure(comparisons));
  if (report.wrongPages > 0) throw new Error(`${report.wrongPages} wrong pages`);
}

function optionsOrExit(): QemuBenchOptions | undefined {
  try {
    const options = parseOptions(process.argv.slice(2));
    if (options !== 'help') return options;
    process.stdout.write(USAGE);
  } catch (error) {
    process.stderr.write(`${PREFIX} ${error instanceof Error ? error.message : String(error)}\n\n${USAGE}`);
    process.exitCode = 2;
  }
  return undefined;
}

const options = optionsOrExit();
if (options) {
  const stop = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stop.abort());
  try {
    await bench(options, stop.signal);
  } catch (error) {
    // What fails because everything is being ended is no news.
    if (!stop.signal.aborted) complain(error instanceof Error ? error.message : String(error));
    process.exitCode = stop.signal.aborted ? 130 : 1;
  }
}
