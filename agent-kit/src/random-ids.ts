/** Random ids of traces and spans. Drawn from the kernel many at a time: every fault has one, and drawing one alone costs 8 us. */
import { randomFillSync } from 'node:crypto';

const TRACE_ID_BYTES = 16;
const SPAN_ID_BYTES = 8;
const DRAWN_BYTES = 8192;

class RandomBytes {
  readonly #drawn = Buffer.alloc(DRAWN_BYTES);
  #next = DRAWN_BYTES;

  hex(bytes: number): string {
    if (this.#next + bytes > DRAWN_BYTES) {
      randomFillSync(this.#drawn);
      this.#next = 0;
    }
    const at = this.#next;
    this.#next += bytes;
    return this.#drawn.toString('hex', at, this.#next);
  }
}

const random = new RandomBytes();

export const newTraceId = (): string => random.hex(TRACE_ID_BYTES);
export const newSpanId = (): string => random.hex(SPAN_ID_BYTES);
