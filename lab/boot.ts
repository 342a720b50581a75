/** One boot of the lab: QEMU, the kernel, a script in it, and how it ended. Emulated all through, so that it is the same on every machine. */
import { spawn } from 'node:child_process';
import { createWriteStream, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { LineCutter, parseConsoleLine, type ConsoleLine } from './console.ts';

/** The lab did not do what it is for, whatever the script would have said. */
export class LabError extends Error {}

export interface Machine {
  readonly qemu: string;
  readonly kernel: string;
  readonly initrd: string;
}

export interface BootOptions {
  readonly machine: Machine;
  /** A shell script; runs as root at the machine's own root. */
  readonly script: string;
  /** Writable inside as /run/lab; the script and the console's log are in it too. */
  readonly folder: string;
  readonly memoryMiB: number;
  readonly kernelArguments: readonly string[];
  readonly deadlineS: number;
  /** Each line of the script's, and what the kernel complains about. */
  readonly onLine: (line: string) => void;
  /** Ends it at once. */
  readonly signal: AbortSignal;
}

export interface BootResult {
  readonly code: number;
  readonly seconds: number;
  readonly output: readonly string[];
}

/** Two: what races needs a second one, and more than the machine has would only wait for each other. */
const PROCESSORS = 2;
/** Warnings are printed, what is said for information is not. */
const KERNEL_LOG_LEVEL = 5;

function qemuArguments({ machine, memoryMiB, kernelArguments, folder }: BootOptions, serial: string): string[] {
  const append = ['console=ttyS0', 'panic=-1', 'printk.time=1', `loglevel=${KERNEL_LOG_LEVEL}`, ...kernelArguments];
  return [
    // Every processor feature that QEMU emulates: AMD's virtualisation with nested paging is one.
    // One thread for both processors: with two, vCPUs ended in triple faults (README).
    ...['-accel', 'tcg,thread=single', '-cpu', 'max', '-smp', String(PROCESSORS), '-m', String(memoryMiB)],
    ...['-nodefaults', '-no-user-config', '-no-reboot', '-display', 'none', '-monitor', 'none', '-serial', serial],
    ...['-kernel', machine.kernel, '-initrd', machine.initrd, '-append', append.join(' ')],
    ...['-virtfs', 'local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap'],
    ...['-virtfs', `local,path=${folder.replaceAll(',', ',,')},mount_tag=results,security_model=none`],
  ];
}

/** With the terminal as its console; ends when the script does. */
export async function bootInteractively(options: Omit<BootOptions, 'onLine' | 'deadlineS'>): Promise<void> {
  writeFileSync(join(options.folder, 'run'), options.script);
  const full: BootOptions = { ...options, onLine: () => undefined, deadlineS: 0 };
  const qemu = spawn(options.machine.qemu, qemuArguments(full, 'stdio'), { stdio: 'inherit', signal: options.signal });
  await new Promise<void>((resolve, reject) => {
    qemu.on('error', reject);
    qemu.on('exit', () => resolve());
  });
}

/** Resolves with the script's own exit code. Everything else that can end a lab is a LabError that says where the console's log is. */
export async function boot(options: BootOptions): Promise<BootResult> {
  const started = performance.now();
  writeFileSync(join(options.folder, 'run'), options.script);
  const path = join(options.folder, 'console.log');
  const log = createWriteStream(path);
  const qemu = spawn(options.machine.qemu, qemuArguments(options, 'stdio'), { stdio: ['ignore', 'pipe', 'pipe'] });
  const output: string[] = [];
  const trouble: string[] = [];
  let complaint = '';
  let up = false;
  let last: Extract<ConsoleLine, { kind: 'ended' | 'died' }> | undefined;
  let late = false;

  const take = (raw: string): void => {
    const line = parseConsoleLine(raw);
    switch (line.kind) {
      case 'up':
        up = true;
        return;
      case 'ended':
      case 'died':
        last = line;
        // Before the mark there is an end of line, in case the script left none.
        if (output.at(-1) === '') output.pop();
        return;
      case 'kernel':
        if (line.trouble) trouble.push(line.text);
        // A panic is one line among thirty that say where.
        if (trouble.length > 0) options.onLine(line.text);
        return;
      case 'output':
        if (!up) return;
        output.push(line.text);
        options.onLine(line.text);
    }
  };
  const cutter = new LineCutter();
  qemu.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    log.write(chunk);
    for (const line of cutter.push(chunk)) take(line);
  });
  qemu.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    log.write(chunk);
    complaint += chunk;
  });
  const kill = (): void => void qemu.kill('SIGKILL');
  const deadline = setTimeout(() => {
    late = true;
    kill();
  }, options.deadlineS * 1000);
  options.signal.addEventListener('abort', kill);
  const status = await new Promise<number | string>((resolve, reject) => {
    qemu.on('error', reject);
    // Not 'exit': what it wrote last may still be in the pipe.
    qemu.on('close', (code, by) => resolve(code ?? by ?? 'unknown'));
  }).finally(() => {
    clearTimeout(deadline);
    options.signal.removeEventListener('abort', kill);
  });
  for (const line of cutter.flush()) take(line);
  await new Promise((resolve) => log.end(resolve));

  const fail = (why: string): LabError => new LabError(`${why} (console: ${path})`);
  if (options.signal.aborted) throw fail('stopped');
  if (late) throw fail(`not through after ${options.deadlineS} s`);
  if (last?.kind === 'died') throw fail(`the lab could not be set up: ${last.why}`);
  if (last === undefined) {
    const panic = trouble.find((line) => line.includes('Kernel panic')) ?? trouble.at(0);
    throw fail(panic ?? (complaint.trim() || `QEMU ended (${String(status)}) before the script did`));
  }
  // A WARN may be torn by a program's own output, and the kernel's word for it is not.
  if (last.tainted !== 0) throw fail(`the kernel complained (tainted ${last.tainted}): ${trouble[0] ?? 'see the log'}`);
  return { code: last.code, seconds: (performance.now() - started) / 1000, output };
}
