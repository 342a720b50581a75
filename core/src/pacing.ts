/**
 * How much prefetch to have under way. What is asked for and has not come stands on the link, and every fault's answer stands behind it: 1 MiB is 8 ms at
 * 1 Gbit/s. Too little, and the link waits for the next request. About twice what the link itself holds (its rate times the time of a range that finds it
 * empty) keeps it busy while either side is put aside for a moment; little more than what it holds while faults wait.
 *
 * Both are measured: the rate as the best that was seen lately, as whatever else runs on the hosts only ever makes it look lower; the time as the least
 * of this period and the last one. As a queue of our own would hide what an empty link takes, every period begins with one range alone.
 */

/** Before anything is known. */
const FIRST_CREDIT_BYTES = 1024 * 1024;
/** 20 ms at 1 Gbit/s is 2.5 MB, 1 ms at 10 Gbit/s half of that; beyond this only memory on both sides would grow. */
const MOST_CREDIT_BYTES = 8 * 1024 * 1024;
/** Of what the link holds. With exactly that, a link that could carry more would never be found to. */
const SHARE = 2;
const SHARE_WITH_FAULTS = 1.5;
/** So many ranges are always asked for: one on the link, one that the source reads, and one for a thread that is put aside for a moment. */
const LEAST_RANGES = 3;
/** The longest range, which is also the longest that is written in one call. */
export const MOST_RANGE_BYTES = 256 * 1024;
/** Not shorter, so that three are 384 KiB: on a host that is busy both sides wait for a core more than for the link, which looks slow then, and less under way would make it so. */
const LEAST_RANGE_BYTES = 128 * 1024;
/** How long a range should be on the link: a fault's answer waits for one at least. */
const RANGE_MS = 1;
/** Over which the rate is measured: longer than a thread is put aside for. */
const WINDOW_MS = 20;
/** What was seen counts for so much less with every window. */
const FADING = 0.97;
const PERIOD_MS = 1000;
/** A fault so long ago does not wait any more, and another one may come. */
const FAULT_MS = 10;

export class PrefetchPacing {
  #creditBytes = FIRST_CREDIT_BYTES;
  #rangeBytes = MOST_RANGE_BYTES;
  #bytesPerMs = 0;
  #leastMs = Number.POSITIVE_INFINITY;
  #leastBeforeMs = Number.POSITIVE_INFINITY;
  #windowMs: number | undefined;
  #windowBytes = 0;
  #periodMs: number | undefined;
  /** Nothing else is asked for until a range that was asked for from here on, and alone, has come. */
  #lookingSinceMs: number | undefined;
  #faultMs = Number.NEGATIVE_INFINITY;

  /** The longest range to ask for. */
  get rangeBytes(): number {
    return this.#rangeBytes;
  }

  /** More may be asked for while less than this is under way. */
  creditBytes(nowMs: number): number {
    if (this.#lookingSinceMs !== undefined) return 1;
    const least = LEAST_RANGES * this.#rangeBytes;
    return nowMs - this.#faultMs < FAULT_MS
      ? Math.max(least, (this.#creditBytes * SHARE_WITH_FAULTS) / SHARE)
      : this.#creditBytes;
  }

  /** A vCPU waits for a page. */
  fault(nowMs: number): void {
    this.#faultMs = nowMs;
  }

  /** A range of so many bytes that was asked for then has come. */
  came(bytes: number, askedMs: number, nowMs: number): void {
    this.#leastMs = Math.min(this.#leastMs, nowMs - askedMs);
    if (this.#lookingSinceMs !== undefined && askedMs >= this.#lookingSinceMs) this.#lookingSinceMs = undefined;
    this.#windowMs ??= askedMs;
    this.#periodMs ??= nowMs;
    this.#windowBytes += bytes;
    if (nowMs - this.#windowMs >= WINDOW_MS) this.#measure(nowMs);
    if (nowMs - this.#periodMs >= PERIOD_MS) this.#look(nowMs);
  }

  /** Nothing was under way for a while, which was not the link's doing. */
  idle(): void {
    this.#windowMs = undefined;
    this.#windowBytes = 0;
  }

  #measure(nowMs: number): void {
    const rate = this.#windowBytes / (nowMs - (this.#windowMs ?? nowMs));
    this.#bytesPerMs = Math.max(rate, this.#bytesPerMs * FADING);
    this.#windowMs = nowMs;
    this.#windowBytes = 0;
    const ranges = Math.round((this.#bytesPerMs * RANGE_MS) / LEAST_RANGE_BYTES);
    this.#rangeBytes = Math.min(MOST_RANGE_BYTES, Math.max(1, ranges) * LEAST_RANGE_BYTES);
    const product = this.#bytesPerMs * Math.min(this.#leastMs, this.#leastBeforeMs);
    this.#creditBytes = Math.min(MOST_CREDIT_BYTES, Math.max(LEAST_RANGES * this.#rangeBytes, SHARE * product));
  }

  #look(nowMs: number): void {
    this.#periodMs = nowMs;
    this.#leastBeforeMs = this.#leastMs;
    this.#leastMs = Number.POSITIVE_INFINITY;
    this.#lookingSinceMs = nowMs;
  }
}
