/** Drives toucher.c: the process whose memory the tests fill, with threads that touch it. */
import assert from 'node:assert/strict';
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { probe, UFFD_FEATURE } from '@pagewake/native';
import { until } from './wait.ts';

const SOURCE = fileURLToPath(new URL('toucher.c', import.meta.url));
const BUILD = fileURLToPath(new URL('build', import.meta.url));

export const PAGE_BYTES = 4096;

/** Compiled on first use; under another name first, as test files run side by side. */
function build(): string {
  const program = join(BUILD, 'toucher');
  if (existsSync(program) && statSync(program).mtimeMs > statSync(SOURCE).mtimeMs) return program;
  mkdirSync(BUILD, { recursive: true });
  const fresh = `${program}.${String(process.pid)}`;
  const compiler = spawnSync('cc', ['-O1', '-Wall', '-Wextra', '-pthread', '-o', fresh, SOURCE], { encoding: 'utf8' });
  if (compiler.status !== 0) throw new Error(`cc: ${compiler.error?.message ?? compiler.stderr}`);
  renameSync(fresh, program);
  return program;
}

const capabilities = probe();

/** False where this machine can do what the test needs, else the reason to skip, as the probe found it. */
export function lacking(...names: readonly string[]): string | false {
  for (const name of names) {
    const row = capabilities.find((c) => c.name === name);
    if (!row) throw new Error(`the probe has no row ${JSON.stringify(name)}`);
    if (!row.available) return `this machine lacks ${name}: ${row.detail}`;
  }
  return false;
}

export interface ToucherOptions {
  readonly memory?: 'memfd' | 'anonymous';
  /** Memory files, each with as many pages as the others. */
  readonly files?: number;
  readonly pages?: number;
  readonly workers?: number;
  /** Tells of ranges that are given back. */
  readonly removeEvents?: boolean;
  readonly minor?: boolean;
  /** False: no userfaultfd at all. */
  readonly register?: boolean;
  /** A page that is filled with a byte before anything is registered. */
  readonly prefill?: { readonly page: number; readonly byte: number };
}

export type Touch = { readonly kind: 'content'; readonly crc: number } | { readonly kind: 'sigbus' };

export class Toucher {
  readonly pid: number;
  readonly address: number;
  readonly pages: number;
  /** Thread ids of the workers. */
  readonly threads: readonly number[];
  readonly #child: ChildProcess;
  readonly #lines: string[];

  private constructor(
    child: ChildProcess,
    lines: string[],
    ready: { address: number; threads: number[] },
    pages: number,
  ) {
    this.#child = child;
    this.#lines = lines;
    this.pid = child.pid ?? assert.fail('no pid');
    this.address = ready.address;
    this.threads = ready.threads;
    this.pages = pages;
  }

  static async start(t: TestContext, options: ToucherOptions = {}): Promise<Toucher> {
    const { memory = 'memfd', pages = 16, workers = 2, removeEvents = false, minor = false, register = true } = options;
    const features =
      UFFD_FEATURE.threadId |
      (memory === 'memfd' ? UFFD_FEATURE.missingShmem : 0) |
      (minor ? UFFD_FEATURE.minorShmem : 0) |
      (removeEvents ? UFFD_FEATURE.eventRemove : 0);
    const args = [
      `memory=${memory}`,
      `files=${String(options.files ?? 1)}`,
      `pages=${String(pages)}`,
      `workers=${String(workers)}`,
      `features=${String(features)}`,
      `minor=${minor ? '1' : '0'}`,
      `register=${register ? '1' : '0'}`,
    ];
    if (options.prefill) args.push(`prefill=${String(options.prefill.page)}:${String(options.prefill.byte)}`);
    const child = spawn(build(), args, { stdio: ['pipe', 'pipe', 'inherit'] });
    const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    t.after(async () => {
      child.kill('SIGKILL');
      await gone;
    });
    const lines: string[] = [];
    assert(child.stdout !== null);
    createInterface({ input: child.stdout }).on('line', (line) => lines.push(line));
    child.stdin?.on('error', () => undefined);
    const ready = await until('the toucher is ready', () => takeLine(lines, /^ready (.*)$/));
    return new Toucher(child, lines, JSON.parse(ready[1] ?? '') as { address: number; threads: number[] }, pages);
  }

  /** Not awaited by the caller at once where the thread is meant to wait. */
  async touch(worker: number, page: number): Promise<Touch> {
    return this.#touched(`touch ${String(worker)} ${String(page)}`, worker, page);
  }

  /** Fills the page with a byte. */
  async store(worker: number, page: number, byte: number): Promise<Touch> {
    return this.#touched(`store ${String(worker)} ${String(page)} ${String(byte)}`, worker, page);
  }

  async #touched(command: string, worker: number, page: number): Promise<Touch> {
    this.#say(command);
    const pattern = new RegExp(`^(touched|sigbus) ${String(worker)} ${String(page)}(?: (\\d+))?$`);
    const [, what, crc] = await this.#answer(`worker ${String(worker)} has touched page ${String(page)}`, pattern);
    return what === 'sigbus' ? { kind: 'sigbus' } : { kind: 'content', crc: Number(crc) };
  }

  /** Gives pages back: MADV_REMOVE of a memfd, MADV_DONTNEED of anonymous memory. Waits until that event was read. */
  async remove(worker: number, page: number, count: number): Promise<void> {
    this.#say(`remove ${String(worker)} ${String(page)} ${String(count)}`);
    const pattern = new RegExp(`^removed ${String(worker)} ${String(page)} (\\d+)$`);
    const [, errno] = await this.#answer('pages are given back', pattern);
    assert.equal(errno, '0', 'errno of madvise');
  }

  /** Gives every `step`-th page back and reads it at once. */
  async churn(worker: number, page: number, count: number, step: number): Promise<{ failed: number; nonzero: number }> {
    this.#say(`churn ${[worker, page, count, step].join(' ')}`);
    const pattern = new RegExp(`^churned ${String(worker)} (\\d+) (\\d+)$`);
    const [, failed, nonzero] = await this.#answer('churned', pattern);
    return { failed: Number(failed), nonzero: Number(nonzero) };
  }

  /** Whether the page has an entry in the process's page table. A round trip over its main thread too. */
  async isMapped(page: number): Promise<boolean> {
    this.#say(`filled ${String(page)}`);
    const pattern = new RegExp(`^filled ${String(page)} ([01])$`);
    const [, mapped] = await this.#answer('the page table is read', pattern);
    return mapped === '1';
  }

  /** Whether the page's bit in its bitmap is set. */
  async bit(page: number): Promise<boolean> {
    this.#say(`bit ${String(page)}`);
    const [, set] = await this.#answer('the bitmap is read', new RegExp(`^bit ${String(page)} ([01])$`));
    return set === '1';
  }

  /** Resolves once the process is gone by itself, or by another's hand. @returns the signal */
  async gone(): Promise<string | null> {
    await until('the toucher is gone', () => this.#child.signalCode !== null || this.#child.exitCode !== null);
    return this.#child.signalCode;
  }

  /** Connects and sends a text with the descriptors, as a VMM does. */
  handOver(socketPath: string, descriptors: readonly ('uffd' | 'memfd' | 'bitmap')[], text: string): void {
    this.#say(`handover ${socketPath} ${descriptors.map((d) => d[0]).join('')} ${text}`);
  }

  send(text: string): void {
    this.#say(`send ${text}`);
  }

  /** The next message on the channel that was handed over. */
  async message(): Promise<Record<string, unknown>> {
    const [, text] = await this.#answer('a message of the agent', /^channel (.*)$/);
    return JSON.parse(text ?? '') as Record<string, unknown>;
  }

  /** Messages that came and that nobody asked for. */
  unread(): readonly string[] {
    return this.#lines.filter((line) => line.startsWith('channel '));
  }

  async channelClosed(): Promise<void> {
    await this.#answer('the channel is closed', /^closed$/);
  }

  /** Resolves once the process is gone. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await until('the toucher is gone', () => this.#child.signalCode !== null);
  }

  /** Fails at once where nobody is left to answer. */
  #answer(what: string, pattern: RegExp): Promise<RegExpExecArray> {
    return until(what, () => {
      const line = takeLine(this.#lines, pattern);
      if (!line && this.#child.signalCode !== null) throw new Error(`the toucher is gone: ${what}`);
      return line;
    });
  }

  #say(command: string): void {
    this.#child.stdin?.write(`${command}\n`);
  }
}

/** Takes the first line that matches, as others may be for somebody else. */
function takeLine(lines: string[], pattern: RegExp): RegExpExecArray | undefined {
  for (const [index, line] of lines.entries()) {
    const match = pattern.exec(line);
    if (!match) continue;
    lines.splice(index, 1);
    return match;
  }
  return undefined;
}

/** A folder short enough for Unix sockets, removed after the test. */
export function temporaryDir(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'pw-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}
