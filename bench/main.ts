/**
 * `npm run bench`: pagewake against the floor, in turn, on this machine and in the same minutes. No figure here can fail a run; what can is a page
 * that is wrong, and a measurement that was not what it says.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { Cleanup } from '../e2e/lib/cleanup.ts';
import { parseOptions, USAGE, type BenchOptions } from './lib/options.ts';
import { barsTable, machine, reportOf, type Done } from './lib/report.ts';
import type { Section, SectionResult } from './lib/section.ts';
import { SECTIONS } from './lib/sections.ts';

/** A minute's load above which somebody else is using the machine. */
const QUIET_LOAD = 1;
const PREFIX = 'npm run bench:';

const say = (text: string): void => void process.stdout.write(`${text}\n`);
const complain = (text: string): void => void process.stderr.write(`${PREFIX} ${text}\n`);

/** Of the section that runs; also when a signal comes. */
const scope = new Cleanup();
let stopped = false;

async function outcomeOf(section: Section, { size, runs }: BenchOptions): Promise<SectionResult | Error> {
  const folder = mkdtempSync(join(tmpdir(), `pw-bench-${section.name}-`));
  scope.after(() => rmSync(folder, { recursive: true, force: true }));
  try {
    return await section.run({ size, runs, folder, say, cleanup: (step) => scope.after(step) });
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  } finally {
    await scope.run();
  }
}

function write(path: string, content: string): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content);
}

/** @returns whether every section came to its end */
async function bench(options: BenchOptions): Promise<boolean> {
  const on = machine();
  say(`${on.cpus} CPUs, Linux ${on.kernel}, Node ${on.node}, load ${on.loadBefore.toFixed(2)}`);
  if (on.loadBefore > QUIET_LOAD) say('something else runs on this machine: believe the ratios more than the figures');
  const done: Done[] = [];
  for (const section of SECTIONS.filter(({ name }) => options.only.includes(name))) {
    say(`\n# ${section.name}: ${section.title}`);
    const beginMs = performance.now();
    const outcome = await outcomeOf(section, options);
    // What fails because everything is being ended is no news.
    if (stopped) return false;
    done.push({ section, seconds: (performance.now() - beginMs) / 1000, outcome });
    if (outcome instanceof Error) complain(`${section.name}: ${outcome.message}`);
    else say(`\n${outcome.table}`);
    if (options.charts === undefined || outcome instanceof Error) continue;
    for (const { file, svg } of outcome.charts ?? []) write(join(options.charts, file), svg);
  }
  say(`\n# what was to be reached\n\n${barsTable(done)}`);
  if (options.size === 'quick')
    say('\nquick: one run each, small fills, and growth with guests that are mostly holes: quote a full run');
  if (options.size === 'smoke') say('\nsmoke: these sizes say nothing about speed');
  if (options.json !== undefined)
    write(options.json, `${JSON.stringify(reportOf(options.size, options.runs, on, done), undefined, 2)}\n`);
  return done.every(({ outcome }) => !(outcome instanceof Error));
}

function optionsOrExit(): BenchOptions | undefined {
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
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => {
      stopped = true;
      void scope.run().finally(() => process.exit(130));
    });
  if (!(await bench(options))) process.exitCode = 1;
}
