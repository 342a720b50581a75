/** What was asked for on the demand lane and is not sent yet. */
import { ErrorReason, PagewakeError } from '@pagewake/agent-kit';
import type { TraceContext } from '@pagewake/proto';

/** A request as it was read, but for traces that nobody records. */
export interface Wanted {
  readonly faultId: number;
  readonly region: number;
  readonly page: number;
  /** 0: one page that somebody waits for. */
  readonly pageCount: number;
  readonly trace?: TraceContext | undefined;
}

export interface AskedFor {
  readonly fault: Wanted;
  /** `performance.now()`. */
  readonly receivedMs: number;
  readonly pageSizeBytes: number;
  /** Pages of a run that were sent. */
  done: number;
}

/** A destination has a few for each thread of its VM. Asking costs less than sending, so there must be an end to it. */
const MOST_WAITING = 16_384;

/** Items that are through are let go at once where nothing waits behind them, else so many at a time. */
const LET_GO = 4096;

/** First in, first out, and hardly anything moves for it. */
export class FaultQueue {
  #items: AskedFor[] = [];
  #next = 0;

  get first(): AskedFor | undefined {
    return this.#items[this.#next];
  }

  /** @throws PagewakeError INVALID_ARGUMENT for more than anybody can wait for */
  push(item: AskedFor): void {
    if (this.#items.length - this.#next >= MOST_WAITING)
      throw new PagewakeError(ErrorReason.INVALID_ARGUMENT, `more than ${MOST_WAITING} requests wait to be answered`);
    this.#items.push(item);
  }

  drop(): void {
    this.#next++;
    if (this.#next < this.#items.length && this.#next < LET_GO) return;
    this.#items = this.#items.slice(this.#next);
    this.#next = 0;
  }
}

/** Of a run of neighbours, sent at once: what a fault that comes right then has to stand behind. */
export const PIECE_BYTES = 64 * 1024;
