/**
 * Whether LZ4 pays on this link: where it makes bytes faster than the link takes them. A link of 1 Gbit/s carries text-like memory several times as fast
 * compressed; over a fast one, compressing takes longer than sending. Both speeds are the best that were seen lately: whatever else runs on the host
 * only ever makes one look slower than it is. Reading and sending take this thread's time as well, and what it takes for that is no time of the link's.
 */
import { SAMPLE_BYTES } from '../../domain/frame-maker.ts';
import type { Compression } from '../grpc/bulk-lane.ts';

/** Bytes on the wire over which the link is timed: more than is under way on most links, so that no buffer passes for a fast link; few enough to lie between stalls. */
const WINDOW_BYTES = 2 * 1024 * 1024;
/** A silence of so long was not the link's. */
const IDLE_MS = 20;
/** What was seen counts for so much less with every window, and every look. */
const FADING = 0.95;
/** LZ4 has to be faster than the link by that: it takes CPU from a guest. */
const MARGIN = 1.25;
/** One chunk in so many is looked at, so that content that does not shrink hardly pays for it. */
const LOOK_EVERY = 32;
/**
 * After so many windows with LZ4 one without: a link that has become faster shows only there. And where LZ4 moved less memory than the link could (the
 * host has no CPU to spare), so many without.
 */
const WINDOWS_BETWEEN = 32;
/** So many windows at the start say nothing: code that has just started is slow, and what buffers on the way take at once is not the link. */
const FIRST_WINDOWS = 4;
/** Share of the latest window in what LZ4 is said to move. */
const LATEST = 0.3;

export class Compressor {
  readonly #compression: Compression;
  readonly #now: () => number;
  #linkBytesPerMs = Number.POSITIVE_INFINITY;
  #lz4BytesPerMs = 0;
  /** What this thread takes to read and send a byte that is not compressed, at best. */
  #ownMsPerByte = 0;
  #shrinks = false;
  #chunks = 0;
  #windows = 0;
  /** Memory that went compressed, a millisecond. 0: not known. */
  #packedPerMs = 0;
  #restUntil = 0;
  #bytes = 0;
  #memoryBytes = 0;
  #packedBytes = 0;
  #ownMs = 0;
  #beganMs: number;
  #lastMs: number;

  constructor(compression: Compression, now: () => number = () => performance.now()) {
    this.#compression = compression;
    this.#now = now;
    this.#beganMs = this.#lastMs = now();
  }

  /** @param shrinks compresses a sample of what comes next, and says whether it became much smaller */
  wants(shrinks: () => boolean): boolean {
    if (this.#compression !== 'auto') return this.#compression === 'lz4';
    if (this.#chunks++ % LOOK_EVERY === 0) {
      const beganMs = this.#now();
      this.#shrinks = shrinks();
      const bytesPerMs = SAMPLE_BYTES / Math.max(this.#now() - beganMs, 0.001);
      this.#lz4BytesPerMs = Math.max(this.#lz4BytesPerMs * FADING, bytesPerMs);
    }
    if (!this.#shrinks || this.#windows < this.#restUntil || this.#windows < FIRST_WINDOWS) return false;
    if (this.#windows % WINDOWS_BETWEEN === WINDOWS_BETWEEN - 1) return false;
    return 1 / (1 / this.#lz4BytesPerMs + this.#ownMsPerByte) > this.#linkBytesPerMs * MARGIN;
  }

  /** So much of memory went to the link, as so much on the wire. @param ownMs in which this thread read it and gave it to the socket */
  sent(memoryBytes: number, wireBytes: number, ownMs = 0): void {
    const now = this.#now();
    if (now - this.#lastMs > IDLE_MS) this.#begin(now);
    this.#lastMs = now;
    this.#bytes += wireBytes;
    this.#memoryBytes += memoryBytes;
    this.#ownMs += ownMs;
    if (wireBytes < memoryBytes) this.#packedBytes += memoryBytes;
    if (this.#bytes < WINDOW_BYTES) return;
    const ms = Math.max(now - this.#beganMs, 0.001);
    const before = this.#windows < FIRST_WINDOWS ? 0 : this.#linkBytesPerMs * FADING;
    this.#linkBytesPerMs = Math.max(before, this.#bytes / ms);
    this.#windows++;
    if (this.#packedBytes === 0) this.#timeOwn(this.#ownMs / this.#memoryBytes);
    if (this.#packedBytes > this.#memoryBytes / 2) this.#judge(this.#memoryBytes / ms);
    this.#begin(now);
  }

  #timeOwn(msPerByte: number): void {
    const before = this.#ownMsPerByte === 0 ? msPerByte : this.#ownMsPerByte / FADING;
    this.#ownMsPerByte = Math.min(before, msPerByte);
  }

  #judge(packedPerMs: number): void {
    const before = this.#packedPerMs === 0 ? packedPerMs : this.#packedPerMs;
    this.#packedPerMs = before + (packedPerMs - before) * LATEST;
    if (this.#packedPerMs >= this.#linkBytesPerMs) return;
    this.#restUntil = this.#windows + WINDOWS_BETWEEN;
    this.#packedPerMs = 0;
  }

  #begin(now: number): void {
    this.#bytes = 0;
    this.#memoryBytes = 0;
    this.#packedBytes = 0;
    this.#ownMs = 0;
    this.#beganMs = now;
  }
}
