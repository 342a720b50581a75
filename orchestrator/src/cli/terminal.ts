/** Where the program's output goes; tests put something else here. */
export interface Terminal {
  out(text: string): void;
  err(text: string): void;
  /** Standard output is a terminal: a line may be written over. */
  readonly isTerminal: boolean;
  /** Width of the terminal. */
  readonly columns: number;
}

export const processTerminal: Terminal = {
  out: (text) => void process.stdout.write(text),
  err: (text) => void process.stderr.write(text),
  isTerminal: process.stdout.isTTY,
  get columns() {
    return process.stdout.columns ?? 80;
  },
};
