/**
 * A stretch of memory in which the answers to a batch of faults are made, one behind the other, and from which they go out in one write: the page is
 * read straight to where it leaves from.
 */
import { MESSAGE_PREFIX_BYTES, putMessagePrefix } from '@pagewake/agent-kit';
import { HEAD_ROOM_BYTES, putFrameHead, type FrameHead } from '@pagewake/proto';

const ROOM_BYTES = HEAD_ROOM_BYTES + MESSAGE_PREFIX_BYTES;

export class Slab {
  readonly buffer: Buffer;
  #end = 0;

  constructor(sizeBytes: number) {
    this.buffer = Buffer.allocUnsafeSlow(sizeBytes);
  }

  /** What a payload of so many bytes takes at most. */
  static roomFor(payloadBytes: number): number {
    return payloadBytes + ROOM_BYTES;
  }

  get empty(): boolean {
    return this.#end === 0;
  }

  has(payloadBytes: number): boolean {
    return this.#end + Slab.roomFor(payloadBytes) <= this.buffer.length;
  }

  /** Where the next payload is to be put. */
  room(payloadBytes: number): Buffer {
    const at = this.#end + ROOM_BYTES;
    return this.buffer.subarray(at, at + payloadBytes);
  }

  /** Makes a message of it. `payload` is in `room` already, or comes from elsewhere. */
  add(head: FrameHead, payload: Uint8Array): void {
    const at = this.#end + ROOM_BYTES;
    if (payload.buffer !== this.buffer.buffer) this.buffer.set(payload, at);
    const start = putFrameHead(this.buffer, at, payload.length, head);
    const from = putMessagePrefix(this.buffer, start, at + payload.length - start);
    // Heads differ in length: the message moves up to the one before it.
    this.buffer.copyWithin(this.#end, from, at + payload.length);
    this.#end += at + payload.length - from;
  }

  /** All that was added. */
  content(): Buffer {
    return this.buffer.subarray(0, this.#end);
  }

  clear(): void {
    this.#end = 0;
  }
}

/** Slabs that are not on their way. */
export class SlabPool {
  readonly #free: Slab[] = [];
  readonly #sizeBytes: number;
  readonly #keep: number;

  constructor(sizeBytes: number, keep: number) {
    this.#sizeBytes = sizeBytes;
    this.#keep = keep;
  }

  /** An empty one that has room for a payload of so many bytes. */
  take(payloadBytes: number): Slab {
    const needed = Slab.roomFor(payloadBytes);
    if (needed > this.#sizeBytes) return new Slab(needed);
    return this.#free.pop() ?? new Slab(this.#sizeBytes);
  }

  give(slab: Slab): void {
    if (slab.buffer.length !== this.#sizeBytes || this.#free.length >= this.#keep) return;
    slab.clear();
    this.#free.push(slab);
  }
}
