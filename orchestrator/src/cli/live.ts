/** Live progress: on a terminal one line that is written over, elsewhere a plain line a second. */
import type { Migration } from '@pagewake/proto';
import { rateBetween, summaryOf, type MigrationSummary } from '../view.ts';
import { progressLine } from './format.ts';
import type { Terminal } from './terminal.ts';

/** A line a second, with room for a timer that is a little early. */
const PLAIN_INTERVAL_MS = 900;
/** Rates over less than this jump about. */
const RATE_WINDOW_MS = 500;
const ERASE_LINE = '\r\u001B[K';

export class LiveProgress {
  readonly #terminal: Terminal;
  readonly #nowMs: () => number;
  #base: { readonly atMs: number; readonly summary: MigrationSummary } | undefined;
  #rates = { pagesPerSecond: 0, bytesPerSecond: 0, faultsPerSecond: 0 };
  #lastPhase = '';
  #lastLineMs = Number.NEGATIVE_INFINITY;
  #open = false;

  constructor(terminal: Terminal, nowMs: () => number = () => performance.now()) {
    this.#terminal = terminal;
    this.#nowMs = nowMs;
  }

  show(migration: Migration): void {
    const summary = summaryOf(migration);
    const nowMs = this.#nowMs();
    const sinceMs = nowMs - (this.#base?.atMs ?? nowMs);
    if (this.#base === undefined || sinceMs >= RATE_WINDOW_MS) {
      this.#rates = rateBetween(this.#base?.summary, summary, sinceMs);
      this.#base = { atMs: nowMs, summary };
    }
    const line = progressLine(summary, this.#rates);
    if (this.#terminal.isTerminal) {
      this.#terminal.out(ERASE_LINE + line.slice(0, this.#terminal.columns - 1));
      this.#open = true;
    } else if (summary.phase !== this.#lastPhase || nowMs - this.#lastLineMs >= PLAIN_INTERVAL_MS) {
      this.#terminal.out(`${line}\n`);
      this.#lastLineMs = nowMs;
    }
    this.#lastPhase = summary.phase;
  }

  /** A line that stays. */
  say(text: string): void {
    this.#terminal.out(`${this.#open ? ERASE_LINE : ''}${text}\n`);
    this.#open = false;
  }

  /** Leaves the last progress where it is. */
  end(): void {
    if (this.#open) this.#terminal.out('\n');
    this.#open = false;
  }
}
