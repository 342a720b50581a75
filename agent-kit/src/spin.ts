/**
 * Keeps an event loop awake for a moment after something came: the next message is then read at once and not after the kernel has woken a thread,
 * which costs more than serving it. Takes a core for as long; bounded, and off with 0.
 *
 * Where cores are scarce a loop that spins keeps the very thread off that it waits for. It shows as turns that take long because the loop was put
 * aside; then spinning rests for a while.
 */
const PUT_ASIDE_MS = 1;
const REST_MS = 1000;

export class Spinner {
  readonly #forMs: number;
  #untilMs = 0;
  #lastTurnMs = 0;
  #restUntilMs = 0;
  #spinning = false;

  constructor(forUs: number) {
    this.#forMs = forUs / 1000;
  }

  get spinning(): boolean {
    return this.#spinning;
  }

  /** Something came: something else may be right behind it. */
  touch(): void {
    if (this.#forMs === 0) return;
    const now = performance.now();
    if (now < this.#restUntilMs) return;
    this.#untilMs = now + this.#forMs;
    if (this.#spinning) return;
    this.#spinning = true;
    this.#lastTurnMs = now;
    setImmediate(this.#turn);
  }

  stop(): void {
    this.#untilMs = 0;
  }

  /** A loop with an immediate to run does not sleep. */
  readonly #turn = (): void => {
    const now = performance.now();
    const tookMs = now - this.#lastTurnMs;
    this.#lastTurnMs = now;
    if (tookMs > PUT_ASIDE_MS) this.#restUntilMs = now + REST_MS;
    if (now < this.#untilMs && tookMs <= PUT_ASIDE_MS) setImmediate(this.#turn);
    else this.#spinning = false;
  };
}
