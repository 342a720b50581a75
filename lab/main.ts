/**
 * `npm run lab`: a kernel of our own in an emulated machine, and in it what this project is for and no mainline kernel can: a guest on
 * guest_memfd whose faults are seen, all of them. Not part of `npm test`.
 */
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { AptError } from '../e2e/qemu/debian.ts';
import { qemuLab } from '../e2e/qemu/install.ts';
import { boot, bootInteractively, LabError, type Machine } from './boot.ts';
import { LAB_CACHE, labKernel } from './build.ts';
import { labInitrd } from './image.ts';
import { parseOptions, type LabOptions } from './options.ts';
import { scriptOf } from './script.ts';
import { STAGES, type Run, type StageName } from './stages.ts';
import { summary, type Row } from './summary.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url)).replace(/\/$/, '');
const RUNS = join(LAB_CACHE, 'runs');
/** Logs of the last ones are for whoever looks for a reason. */
const RUNS_KEPT = 20;

const say = (text: string): void => void process.stdout.write(`${text}\n`);

/** What a boot leaves; the oldest go. */
function runFolder(name: string): string {
  mkdirSync(RUNS, { recursive: true });
  const old = readdirSync(RUNS).toSorted();
  for (const folder of old.slice(0, Math.max(0, old.length - RUNS_KEPT + 1)))
    rmSync(join(RUNS, folder), { recursive: true, force: true });
  const now = new Date().toISOString().replaceAll(/[:.]/g, '-');
  return mkdtempSync(join(RUNS, `${now}-${name.replaceAll(/[^a-z0-9]+/gi, '-')}-`));
}

function machine(): Machine {
  const found = qemuLab();
  if (found.reason !== undefined) throw new LabError(found.reason);
  const kernel = labKernel();
  say(
    `kernel: Debian's ${kernel.version} and the patches of lab/kernel (${kernel.key}); ${found.parts.version} of QEMU`,
  );
  return { qemu: found.parts.qemu, kernel: kernel.path, initrd: labInitrd() };
}

class Lab {
  readonly #machine: Machine;
  readonly #options: LabOptions;
  readonly #signal: AbortSignal;

  constructor(at: Machine, options: LabOptions, signal: AbortSignal) {
    this.#machine = at;
    this.#options = options;
    this.#signal = signal;
  }

  #boot(name: string, command: string, quick: boolean, kernelArguments: readonly string[] = []) {
    return {
      machine: this.#machine,
      script: scriptOf({ command, root: ROOT, home: homedir(), quick }),
      folder: runFolder(name),
      memoryMiB: this.#options.memoryMiB,
      kernelArguments: [...this.#options.kernelArguments, ...kernelArguments],
      signal: this.#signal,
    };
  }

  async shell(): Promise<void> {
    say('Ctrl-a x ends QEMU at once; "exit" ends the lab. What is written stays in memory, but for /run/lab.');
    await bootInteractively(this.#boot('shell', 'stty sane cols 160 rows 48; bash -i', false));
  }

  async exec(command: string): Promise<number> {
    const options = this.#boot('exec', command, false);
    const { code, seconds } = await boot({ ...options, deadlineS: this.#options.deadlineS, onLine: say });
    say(`(${seconds.toFixed(0)} s, exit ${code}; what it left in /run/lab: ${options.folder})`);
    return code;
  }

  async run(stage: StageName, run: Run, quick: boolean): Promise<Row> {
    const started = performance.now();
    const row = (verdict: Row['verdict']): Row => ({
      stage,
      run: run.name,
      seconds: (performance.now() - started) / 1000,
      verdict,
    });
    const options = this.#boot(`${stage}-${run.name}`, run.command, quick, run.kernelArguments);
    try {
      const onLine = (line: string): void => say(`  ${line}`);
      const { output, code } = await boot({ ...options, deadlineS: run.deadlineS, onLine });
      const verdict = run.judge(output, code);
      const log = verdict.failed > 0 ? [`console: ${join(options.folder, 'console.log')}`] : [];
      return row({ ...verdict, notes: [...verdict.notes, ...log] });
    } catch (error) {
      if (!(error instanceof LabError) || this.#signal.aborted) throw error;
      return row({ passed: 0, failed: 1, skipped: [], notes: [error.message] });
    }
  }

  /** Every stage, also after one that failed: what else is right is worth knowing. */
  async stages(names: readonly StageName[], quick: boolean): Promise<boolean> {
    const rows: Row[] = [];
    for (const stage of STAGES.filter(({ name }) => names.includes(name)))
      for (const run of stage.runs(quick)) {
        say(`\n${stage.name}, ${run.name}: ${stage.what}`);
        rows.push(await this.run(stage.name, run, quick));
      }
    say(`\n${summary(rows)}`);
    return rows.every(({ verdict }) => verdict.failed === 0);
  }
}

async function main(): Promise<number> {
  const options = parseOptions(process.argv.slice(2));
  const { task } = options;
  const at = machine();
  const stop = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => stop.abort());
  const lab = new Lab(at, options, stop.signal);
  switch (task.kind) {
    case 'build':
      say(at.kernel);
      return 0;
    case 'shell':
      await lab.shell();
      return 0;
    case 'exec':
      return lab.exec(task.command);
    case 'stages':
      return (await lab.stages(task.names, task.quick)) ? 0 : 1;
  }
}

try {
  process.exitCode = await main();
} catch (error) {
  if (!(error instanceof LabError || error instanceof AptError)) throw error;
  process.stderr.write(`lab: ${error.message}\n`);
  process.exitCode = 1;
}
