/** What was asked for on the demand lane and is not sent yet. */
import type { PageFault } from '@pagewake/proto';

export interface AskedFor {
  readonly fault: PageFault;
  /** `performance.now()`. */
  readonly receivedMs: number;
  readonly pageSizeBytes: number;
  /** Pages of a run that were sent. */
  done: number;
}

/** First in, first out, and nothing moves for it. */
export class FaultQueue {
  #items: AskedFor[] = [];
  #next = 0;

  get first(): AskedFor | undefined {
    return this.#items[this.#next];
  }

  push(item: AskedFor): void {
    this.#items.push(item);
  }

  drop(): void {
    this.#next++;
    if (this.#next < this.#items.length) return;
    this.#items = [];
    this.#next = 0;
  }
}

/** Of a run of neighbours, sent at once: what a fault that comes right then has to stand behind. */
export const PIECE_BYTES = 64 * 1024;
