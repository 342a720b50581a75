/** A process under the library: heard line by line, and gone when the test is. */
import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { createInterface } from 'node:readline';
import type { TestContext } from 'node:test';
import { FIXTURE, HANG_MS, PRELOAD, until } from './support.ts';

export interface Environment {
  readonly PAGEWAKE_SOCKET?: string;
  readonly PAGEWAKE_RAM?: string;
  readonly PAGEWAKE_RAM_COUNT?: string;
  readonly PAGEWAKE_VM?: string;
}

export interface ProcessOptions {
  /** Of another user. */
  readonly uid?: number;
  /** What its command line has besides. */
  readonly args?: readonly string[];
}

export class Preloaded {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #lines: string[] = [];
  readonly exit: Promise<number | null>;
  #stderr = '';

  constructor(
    t: TestContext,
    command: readonly string[],
    environment: Environment,
    { uid, args: more = [] }: ProcessOptions = {},
  ) {
    const [program = '', ...args] = command;
    this.#child = spawn(program, [...args, ...more], {
      env: { ...process.env, ...environment, LD_PRELOAD: PRELOAD },
      ...(uid === undefined ? {} : { uid }),
    });
    this.#child.stdin.on('error', () => undefined); // it may end before it has read all
    this.#child.stderr.on('data', (data: Buffer) => (this.#stderr += data.toString()));
    createInterface({ input: this.#child.stdout }).on('line', (line) => this.#lines.push(line));
    this.exit = once(this.#child, 'close').then(([code]) => code as number | null);
    t.after(() => {
      this.#child.kill('SIGKILL');
      return this.exit;
    });
  }

  get pid(): number {
    return this.#child.pid ?? -1;
  }

  get stderr(): string {
    return this.#stderr;
  }

  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  write(text: string): void {
    this.#child.stdin.write(text);
  }

  /** The next line that matches, in any order with others; it is taken away. */
  async line(pattern: RegExp): Promise<string> {
    const index = (): number => this.#lines.findIndex((line) => pattern.test(line));
    await until(`a line ${pattern}`, () => index() >= 0 || !this.running);
    const [line] = index() < 0 ? [] : this.#lines.splice(index(), 1);
    if (line === undefined) throw new Error(`ended without a line ${pattern}: ${this.#stderr}`);
    return line;
  }

  heard(pattern: RegExp): boolean {
    return this.#lines.some((line) => pattern.test(line));
  }

  /** What the library says on standard error. */
  async says(pattern: RegExp): Promise<void> {
    await until(`${pattern} on standard error`, () => pattern.test(this.#stderr));
  }

  /** The exit code and all that was said, of a process that is expected to end by itself. */
  async ended(): Promise<{ readonly code: number | null; readonly stderr: string }> {
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), HANG_MS);
    const code = await this.exit;
    clearTimeout(timer);
    return { code, stderr: this.#stderr };
  }

  /** The targets of its descriptors. */
  descriptors(): readonly string[] {
    return readdirSync(`/proc/${this.pid}/fd`).map((fd) => {
      try {
        return readlinkSync(`/proc/${this.pid}/fd/${fd}`);
      } catch {
        return 'closed in between';
      }
    });
  }

  get userfaultfds(): number {
    return this.descriptors().filter((target) => target.includes('[userfaultfd]')).length;
  }

  threads(): readonly string[] {
    return readdirSync(`/proc/${this.pid}/task`).map((tid) => {
      try {
        return readFileSync(`/proc/${this.pid}/task/${tid}/comm`, 'utf8').trim();
      } catch {
        return 'ended in between';
      }
    });
  }
}

/** Drives test/fixture/fixture.c. */
export class Fixture extends Preloaded {
  static async start(t: TestContext, environment: Environment, options?: ProcessOptions): Promise<Fixture> {
    const fixture = new Fixture(t, [FIXTURE], environment, options);
    await fixture.line(/^up$/);
    return fixture;
  }

  say(command: string): void {
    this.write(`${command}\n`);
  }

  async ask(command: string, pattern: RegExp): Promise<string> {
    this.say(command);
    return this.line(pattern);
  }

  /** @returns the address */
  async map(path: string, pages: number, { how = 'shared', firstPage = 0 } = {}): Promise<number> {
    const line = await this.ask(`map ${how} ${path} ${pages} ${firstPage}`, /^map /);
    const [, , address, errno] = line.split(' ').map(Number);
    if (address === undefined || Number.isNaN(address) || errno !== 0) throw new Error(`mapping failed: ${line}`);
    return address;
  }
}
