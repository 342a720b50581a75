/**
 * Whether several threads wait on the other side: their requests come close together, and some of them in one message. One alone may be as close, but
 * never asks for two pages at once; with bulk beside it a loop that stays awake for it would be in the way.
 */
const REQUESTS = 8;
const WITHIN_MS = 0.5;
const TOGETHER_WITHIN_MS = 2;

export class RequestRate {
  /** When the last ones came, in a ring. */
  readonly #cameMs = new Float64Array(REQUESTS).fill(-Infinity);
  #next = 0;
  #togetherMs = -Infinity;

  /** A message asked for so many pages that somebody waits for. */
  note(pages: number, nowMs: number): void {
    if (pages > 1) this.#togetherMs = nowMs;
    for (let i = 0; i < Math.min(pages, REQUESTS); i++) {
      this.#cameMs[this.#next] = nowMs;
      this.#next = (this.#next + 1) % REQUESTS;
    }
  }

  isOfSeveral(nowMs: number): boolean {
    return nowMs - this.#togetherMs < TOGETHER_WITHIN_MS && nowMs - (this.#cameMs[this.#next] ?? 0) < WITHIN_MS;
  }
}
