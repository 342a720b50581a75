/**
 * Whether LZ4 pays on this link, by trying: what counts is memory a second that the destination takes. A link of 1 Gbit/s carries text-like memory several times
 * as fast compressed; over a fast one, compressing takes longer than sending.
 */
import type { Compression } from '../grpc/bulk-lane.ts';

type Way = 'raw' | 'lz4';

/** Memory that is sent one way before its rate counts: long enough for buffers between here and there to be full. */
const TRIAL_BYTES = 4 * 1024 * 1024;
/** So many trials the better way, then one the other way again: links and contents change. */
const TRIALS_BETWEEN = 16;
/** Of what does not shrink one chunk in so many is looked at again. */
const LOOK_EVERY = 32;

export class Compressor {
  readonly #compression: Compression;
  readonly #now: () => number;
  readonly #rate: Record<Way, number> = { raw: 0, lz4: 0 };
  #way: Way = 'raw';
  #trials = 0;
  #bytes = 0;
  #beganMs: number;
  #shrank = true;
  #looked = 0;

  constructor(compression: Compression, now: () => number = () => performance.now()) {
    this.#compression = compression;
    this.#now = now;
    this.#beganMs = now();
  }

  /** @param shrinks whether LZ4 makes what comes next much smaller, told by its beginning */
  wants(shrinks: () => boolean): boolean {
    if (this.#compression !== 'auto') return this.#compression === 'lz4';
    if (this.#way === 'raw') return false;
    // Content that does not shrink must not pay for being looked at.
    if (!this.#shrank && ++this.#looked % LOOK_EVERY !== 0) return false;
    this.#shrank = shrinks();
    return this.#shrank;
  }

  /** So much memory was sent, in whatever form. */
  sent(bytes: number): void {
    this.#bytes += bytes;
    if (this.#bytes < TRIAL_BYTES) return;
    const now = this.#now();
    this.#rate[this.#way] = this.#bytes / Math.max(now - this.#beganMs, 0.001);
    this.#bytes = 0;
    this.#beganMs = now;
    this.#choose();
  }

  #choose(): void {
    const better: Way = this.#rate.lz4 > this.#rate.raw ? 'lz4' : 'raw';
    const other: Way = better === 'lz4' ? 'raw' : 'lz4';
    this.#trials++;
    this.#way = this.#rate[other] === 0 || this.#trials % TRIALS_BETWEEN === 0 ? other : better;
  }
}
