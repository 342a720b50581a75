/** Buffers that are used again and again: a fresh one for every frame costs a fault a page and a collection now and then. */
export class BufferPool {
  readonly #free = new Map<number, Buffer[]>();
  readonly #keep: number;

  /** Keeps at most `keep` free buffers of a size. */
  constructor(keep: number) {
    this.#keep = keep;
  }

  /** Content is whatever was in it. */
  take(sizeBytes: number): Buffer {
    return this.#free.get(sizeBytes)?.pop() ?? Buffer.allocUnsafeSlow(sizeBytes);
  }

  give(buffer: Buffer): void {
    const free = this.#free.get(buffer.length);
    if (free === undefined) this.#free.set(buffer.length, [buffer]);
    else if (free.length < this.#keep) free.push(buffer);
  }
}
