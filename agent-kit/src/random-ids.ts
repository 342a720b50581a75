/** Random ids of traces and spans. Drawn from the kernel many at a time: every fault has one, and drawing one alone costs 8 us. */
import { randomFillSync } from 'node:crypto';

const TRACE_ID_BYTES = 16;
const SPAN_ID_BYTES = 8;
const DRAWN_BYTES = 8192;

class RandomBytes {
  #drawn = Buffer.alloc(0);
  #next = 0;

  /** A view of bytes that are nobody else's. */
  take(bytes: number): Buffer {
    if (this.#next + bytes > this.#drawn.length) {
      this.#drawn = randomFillSync(Buffer.allocUnsafeSlow(DRAWN_BYTES));
      this.#next = 0;
    }
    const at = this.#next;
    this.#next += bytes;
    return this.#drawn.subarray(at, this.#next);
  }
}

const random = new RandomBytes();

export const newTraceId = (): string => random.take(TRACE_ID_BYTES).toString('hex');
export const newSpanId = (): string => random.take(SPAN_ID_BYTES).toString('hex');
/** As it is on the wire. */
export const newSpanIdBytes = (): Uint8Array => random.take(SPAN_ID_BYTES);
