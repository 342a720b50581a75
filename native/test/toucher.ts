/** Drives test/fixture/toucher.cc: the process that faults. */
import { spawn } from 'node:child_process';
import type { ChildProcessWithoutNullStreams } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { MemoryFile, Uffd, UnixListener, UserfaultBitmap } from '../ts/index.ts';
import { HANG_MS, PAGE_BYTES, temporaryFolder } from './support.ts';

const TOUCHER = fileURLToPath(new URL('../build/Release/pagewake_toucher', import.meta.url));

export interface MapOptions {
  /** `memfd`, `anon`, `gmem` (guest_memfd with write()), or the path of a file (on tmpfs). */
  readonly kind?: string;
  readonly pages: number;
  /** 1 missing, 4 minor; 0 leaves the memory alone. */
  readonly mode?: number;
  readonly features?: number;
}

/** What came over the socket: memory of the toucher. */
export interface Mapped {
  readonly address: number;
  readonly uffd: Uffd;
  readonly file: MemoryFile | null;
  /** The address of a page. */
  at(page: number): number;
}

export class Toucher {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #lines: string[] = [];
  #waiting: { readonly pattern: RegExp; readonly found: (line: string) => void } | null = null;
  readonly socket: string;
  readonly #test: TestContext;

  private constructor(test: TestContext, child: ChildProcessWithoutNullStreams, socket: string) {
    this.#test = test;
    this.#child = child;
    this.socket = socket;
    child.stderr.pipe(process.stderr);
    createInterface({ input: child.stdout }).on('line', (line) => {
      this.#lines.push(line);
      this.#match();
    });
  }

  /** `within`: a shell command to run it in, with `"$@"` where the toucher goes. Ends with the test. */
  static start(test: TestContext, within?: { readonly command: string; readonly args: readonly string[] }): Toucher {
    const child = within === undefined ? spawn(TOUCHER) : spawn(within.command, [...within.args, TOUCHER]);
    const toucher = new Toucher(test, child, join(temporaryFolder(test), 'memory.sock'));
    test.after(() => toucher.quit());
    return toucher;
  }

  get pid(): number {
    return this.#child.pid ?? -1;
  }

  say(command: string): void {
    this.#child.stdin.write(`${command}\n`);
  }

  /** The next answer that matches, in any order with others. */
  async answer(pattern: RegExp): Promise<string> {
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const timer = setTimeout(() => {
      reject(new Error(`no answer ${pattern} within ${HANG_MS} ms; got ${JSON.stringify(this.#lines)}`));
    }, HANG_MS);
    this.#waiting = { pattern, found: resolve };
    this.#match();
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
      this.#waiting = null;
    }
  }

  heard(pattern: RegExp): boolean {
    return this.#lines.some((line) => pattern.test(line));
  }

  async ask(command: string, pattern: RegExp): Promise<string> {
    this.say(command);
    return this.answer(pattern);
  }

  /** Maps memory there and takes its descriptors here. */
  async map(options: MapOptions): Promise<Mapped> {
    const { kind = 'memfd', pages, mode = 1, features = 0 } = options;
    const { data, fds } = await this.#handedOver(`map ${kind} ${pages} ${mode} ${features} ${this.socket}`, /^mapped/);
    const address = Number(data.toString());
    const [uffdFd, fileFd] = fds;
    if (uffdFd === undefined) throw new Error('no userfaultfd came over');
    const uffd = Uffd.adopt(uffdFd);
    const file = fileFd === undefined ? null : MemoryFile.adopt(fileFd);
    this.#test.after(() => {
      uffd.close();
      file?.close();
    });
    return { address, uffd, file, at: (page) => address + page * PAGE_BYTES };
  }

  /** Makes a virtual machine over the memory, whose bitmap is all ones, and takes the bitmap here. */
  async machine(pages: number): Promise<UserfaultBitmap> {
    const { fds } = await this.#handedOver(`machine ${this.socket}`, /^machine ready/);
    const [fd] = fds;
    if (fd === undefined) throw new Error('no bitmap came over');
    const bitmap = UserfaultBitmap.adopt(fd, pages);
    this.#test.after(() => bitmap.close());
    return bitmap;
  }

  /** What its vCPU comes to that reads the first byte of a page: `read PAGE BYTE` or `exited PAGE`. */
  async vcpu(page: number): Promise<string> {
    return await this.ask(`vcpu ${page}`, /^(read|exited|failed) /);
  }

  async #handedOver(command: string, answer: RegExp): Promise<{ data: Buffer; fds: number[] }> {
    const { promise, resolve } = Promise.withResolvers<{ data: Buffer; fds: number[] }>();
    const listener = UnixListener.listen(this.socket, (connection) => {
      connection.onData((data, fds) => {
        connection.close();
        resolve({ data, fds });
      });
    });
    try {
      await this.ask(command, answer);
      return await promise;
    } finally {
      listener.close();
    }
  }

  async quit(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const gone = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await gone;
  }

  #match(): void {
    const waiting = this.#waiting;
    if (waiting === null) return;
    const index = this.#lines.findIndex((line) => waiting.pattern.test(line));
    const line = this.#lines[index];
    if (line === undefined) return;
    this.#lines.splice(index, 1);
    this.#waiting = null;
    waiting.found(line);
  }
}
