/** Whether a generation may be read, and what was read of it: on memory that the thread of the bulk lane shares with the one that decides. */

const CLOSED = 0;
const OPEN = 1;
const COUNTS_AT_BYTES = 8;

export class Served {
  readonly buffer: SharedArrayBuffer;
  readonly #gate: Int32Array;
  readonly #counts: BigInt64Array;

  /** @param buffer another one's, to share what it has */
  constructor(buffer = new SharedArrayBuffer(COUNTS_AT_BYTES + 2 * BigInt64Array.BYTES_PER_ELEMENT)) {
    this.buffer = buffer;
    this.#gate = new Int32Array(buffer, 0, 1);
    this.#counts = new BigInt64Array(buffer, COUNTS_AT_BYTES, 2);
  }

  /** The memory is final, and not everything is there yet. Whoever finds it shut asks why. */
  get open(): boolean {
    return Atomics.load(this.#gate, 0) === OPEN;
  }

  set open(open: boolean) {
    Atomics.store(this.#gate, 0, open ? OPEN : CLOSED);
  }

  get pages(): number {
    return Number(Atomics.load(this.#counts, 0));
  }

  get payloadBytes(): number {
    return Number(Atomics.load(this.#counts, 1));
  }

  add(pages: number, payloadBytes: number): void {
    Atomics.add(this.#counts, 0, BigInt(pages));
    Atomics.add(this.#counts, 1, BigInt(payloadBytes));
  }
}
