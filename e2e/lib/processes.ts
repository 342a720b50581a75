/** Child processes of a test: started with a prefix that puts them on a host, heard line by line, and gone when the test is. */
import { spawn, type ChildProcess } from 'node:child_process';
import { EventEmitter } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { budget } from './budget.ts';
import type { Host } from './hosts.ts';

export const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const WAIT_MS = budget(20_000);
const KILL_AFTER_MS = 5000;
const MAX_STDERR_CHARS = 200_000;

export type JsonLine = Readonly<Record<string, unknown>>;

interface Events {
  line: [line: JsonLine];
}

/** A running program that prints JSON lines: events on standard output, its log on standard error. */
export class Program extends EventEmitter<Events> {
  readonly name: string;
  readonly #child: ChildProcess;
  readonly #lines: JsonLine[] = [];
  readonly #exit: Promise<number>;
  #stderr = '';

  constructor(name: string, host: Pick<Host, 'prefix'>, command: readonly string[], env: NodeJS.ProcessEnv = {}) {
    super();
    this.name = name;
    const [program = '', ...args] = [...host.prefix, ...command];
    const child = spawn(program, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...env },
      cwd: ROOT,
    });
    this.#child = child;
    this.#exit = new Promise((resolve) => {
      child.on('error', (error) => {
        this.#stderr += error.message;
        resolve(127);
      });
      // `close` comes after the last of its output, `exit` may come before.
      child.on('close', (code, signal) => resolve(code ?? (signal === null ? 0 : 128)));
    });
    createInterface({ input: child.stdout }).on('line', (text) => this.#onLine(text));
    createInterface({ input: child.stderr }).on('line', (text) => {
      this.#stderr = `${this.#stderr}${text}\n`.slice(-MAX_STDERR_CHARS);
      this.#onLine(text);
    });
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  get stderr(): string {
    return this.#stderr;
  }

  get lines(): readonly JsonLine[] {
    return this.#lines;
  }

  /** Resolves with the exit code (128 where a signal ended it). */
  get exited(): Promise<number> {
    return this.#exit;
  }

  #onLine(text: string): void {
    let line: JsonLine;
    try {
      line = JSON.parse(text) as JsonLine;
    } catch {
      line = { text };
    }
    this.#lines.push(line);
    this.emit('line', line);
  }

  /** The first line, past or to come, that satisfies; fails with the program's own words where it ends or stays silent. */
  async waitFor(what: string, satisfies: (line: JsonLine) => boolean, timeoutMs = WAIT_MS): Promise<JsonLine> {
    const { promise, resolve, reject } = Promise.withResolvers<JsonLine>();
    const look = (line: JsonLine): void => {
      if (satisfies(line)) resolve(line);
    };
    // Listening before looking back: several lines come in one turn.
    this.on('line', look);
    const past = this.#lines.find(satisfies);
    if (past) resolve(past);
    const said = (): string => this.#stderr.slice(-2000);
    const timer = setTimeout(
      () => reject(new Error(`${this.name}: no ${what} within ${timeoutMs} ms: ${said()}`)),
      timeoutMs,
    );
    void this.#exit.then((code) => reject(new Error(`${this.name} exited with ${code} before ${what}: ${said()}`)));
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
      this.off('line', look);
    }
  }

  /** The same at a program's start: one that does not come up is stopped, so that nothing of it is left. */
  async waitForStart(what: string, satisfies: (line: JsonLine) => boolean): Promise<JsonLine> {
    try {
      return await this.waitFor(what, satisfies);
    } catch (error) {
      await this.stop();
      throw error;
    }
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** SIGTERM, then SIGKILL where that is not heard. */
  async stop(): Promise<number> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      this.#child.kill('SIGTERM');
      const timer = setTimeout(() => this.#child.kill('SIGKILL'), KILL_AFTER_MS);
      await this.#exit;
      clearTimeout(timer);
    }
    return this.#exit;
  }
}
