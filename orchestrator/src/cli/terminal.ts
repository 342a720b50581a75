import { EXIT } from './exit.ts';

/** Where the program's output goes; tests put something else here. */
export interface Terminal {
  out(text: string): void;
  err(text: string): void;
  /** From here on what was begun has to come to its end, whether anybody reads of it or not. */
  mustFinish(): void;
  /** Standard output is a terminal: a line may be written over. */
  readonly isTerminal: boolean;
  /** Width of the terminal. */
  readonly columns: number;
}

/** The program's own; one a program. Once nobody reads on, as behind `| head -1`, it ends quietly: Node ignores the signal that would do it. */
export class ProcessTerminal implements Terminal {
  readonly isTerminal = process.stdout.isTTY;
  #mustFinish = false;

  constructor() {
    for (const stream of [process.stdout, process.stderr])
      stream.on('error', (error: NodeJS.ErrnoException) => this.#onError(error));
  }

  get columns(): number {
    return process.stdout.columns ?? 80;
  }

  out(text: string): void {
    process.stdout.write(text);
  }

  err(text: string): void {
    process.stderr.write(text);
  }

  mustFinish(): void {
    this.#mustFinish = true;
  }

  #onError(error: NodeJS.ErrnoException): void {
    if (this.#mustFinish) return;
    if (error.code === 'EPIPE') process.exit(EXIT.unread);
    // A full disk behind `>`.
    this.err(`pagewake: the output cannot be written: ${error.message}\n`);
    process.exit(EXIT.failed);
  }
}
