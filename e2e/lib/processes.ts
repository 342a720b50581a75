/** Child processes of a test: started with a prefix that puts them on a host, heard line by line, and gone when the test is. */
import { spawn, type ChildProcess } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { Host } from './hosts.ts';

export const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const WAIT_MS = 20_000;
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
    const past = this.#lines.find(satisfies);
    if (past) return past;
    const over = new AbortController();
    const found = (async () => {
      for (;;) {
        const [line] = (await once(this, 'line', { signal: over.signal })) as [JsonLine];
        if (satisfies(line)) return line;
      }
    })();
    const timer = setTimeout(() => over.abort(), timeoutMs);
    const ended = this.#exit.then((code) => {
      throw new Error(`${this.name} exited with ${code} before ${what}: ${this.#stderr.slice(-2000)}`);
    });
    try {
      return await Promise.race([found, ended]);
    } catch (error) {
      if (!over.signal.aborted) throw error;
      throw new Error(`${this.name}: no ${what} within ${timeoutMs} ms: ${this.#stderr.slice(-2000)}`, {
        cause: error,
      });
    } finally {
      clearTimeout(timer);
      over.abort();
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
