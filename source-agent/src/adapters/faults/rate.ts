/**
 * Whether several threads wait on the other side, told by how close their requests come: one alone asks again when its page is there and it has run
 * on. Where one is as fast as that, it waits nearly all the time, and has no use for the core either.
 */
const REQUESTS = 8;
const WITHIN_MS = 0.5;

export class RequestRate {
  /** When the last ones came, in a ring. */
  readonly #cameMs = new Float64Array(REQUESTS).fill(-Infinity);
  #next = 0;

  /** A page that somebody waits for was asked for. */
  note(nowMs: number): void {
    this.#cameMs[this.#next] = nowMs;
    this.#next = (this.#next + 1) % REQUESTS;
  }

  isOfSeveral(nowMs: number): boolean {
    return nowMs - (this.#cameMs[this.#next] ?? 0) < WITHIN_MS;
  }
}
