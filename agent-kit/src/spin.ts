/**
 * Keeps an event loop awake for a moment after something came: the next message is then read at once and not after the kernel has woken a thread,
 * which costs more than serving it. Takes a core for as long; bounded, and off with 0.
 */
export class Spinner {
  readonly #forMs: number;
  #untilMs = 0;
  #spinning = false;

  constructor(forUs: number) {
    this.#forMs = forUs / 1000;
  }

  /** Something came: something else may be right behind it. */
  touch(): void {
    if (this.#forMs === 0) return;
    this.#untilMs = performance.now() + this.#forMs;
    if (this.#spinning) return;
    this.#spinning = true;
    setImmediate(this.#turn);
  }

  stop(): void {
    this.#untilMs = 0;
  }

  /** A loop with an immediate to run does not sleep. */
  readonly #turn = (): void => {
    if (performance.now() < this.#untilMs) setImmediate(this.#turn);
    else this.#spinning = false;
  };
}
