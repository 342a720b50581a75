import { binding } from './binding.ts';
import type { NativeLedger } from './binding.ts';
import type { FaultClaim, LedgerCounts } from './types.ts';
import { PAGE } from './types.ts';

/** By the state in which the fault found the page. */
const CLAIMS: readonly FaultClaim[] = ['claimed', 'waiting', 'present', 'zero', 'removed'];

/** What is known of a page's place in the memory after a crash. */
const SEEN = { held: 0, absent: 1, unknown: 2 } as const;

/** `claimRun` packs first * 2^20 + count. */
const RUN_COUNT_RANGE = 2 ** 20;

/** The longest run `claimRun` gives. */
export const MAX_CLAIM_PAGES = RUN_COUNT_RANGE - 1;

export interface ClaimedRun {
  readonly first: number;
  readonly count: number;
}

/**
 * The one owner of page state: `missing → requested → present`, `zero` (known to be zero, never sent), `removed` (given back by
 * the guest). Words of native memory with atomic transitions, shared by threads through `id` and `attach`. Every missing page is claimed
 * exactly once, and a waiter noted before `installed` is reported by it.
 *
 * Page numbers out of range throw RangeError; calls on a closed handle throw `NativeError` with EBADF.
 */
export class PageLedger {
  readonly #native: NativeLedger;
  readonly #counts = new Float64Array(5);
  /** Names the ledger in this process; for `attach` on another thread. */
  readonly id: number;
  readonly pageCount: number;

  private constructor(native: NativeLedger) {
    this.#native = native;
    this.id = native.id();
    this.pageCount = native.pageCount();
  }

  /**
   * All pages missing. Half a byte a page.
   *
   * @param path keeps the states in this file, made anew, so that they outlive the process; on tmpfs, as each change is a store into it
   */
  static create(pageCount: number, path?: string): PageLedger {
    return new PageLedger(new binding.PageLedger(binding.PageLedger.create(pageCount, path ?? '')));
  }

  /**
   * What a process that is gone left in its file. Every page then needs `recover`: the last thing it did it may not have noted.
   * ENOENT: there is none. EINVAL: that is no ledger, not all of one, or one of another build.
   */
  static open(path: string): PageLedger {
    return new PageLedger(new binding.PageLedger(binding.PageLedger.open(path)));
  }

  /** The same ledger on this thread. ENOENT: its last handle is closed, which frees it. */
  static attach(id: number): PageLedger {
    return new PageLedger(new binding.PageLedger(id));
  }

  /** missing → zero. Returns how many pages changed. */
  setZero(first: number, count: number): number {
    return this.#native.setZero(first, count);
  }

  /** A fault on `page`: see `FaultClaim`. */
  fault(page: number): FaultClaim {
    const claim = CLAIMS[this.#native.fault(page)];
    if (claim === undefined) throw new TypeError(`page ${page} is in no known state`);
    return claim;
  }

  /**
   * Claims the first run of missing pages at or after `from` and before `end`, at most `maxPages` long: missing → requested.
   * Null where nothing is missing there.
   */
  claimRun(from: number, end: number, maxPages: number): ClaimedRun | null {
    const packed = this.#native.claimRun(from, end, maxPages);
    if (packed < 0) return null;
    return { first: Math.floor(packed / RUN_COUNT_RANGE), count: packed % RUN_COUNT_RANGE };
  }

  /**
   * requested → present, after the kernel said so. Pages in another state stay as they are (a page that was removed
   * meanwhile must not become present).
   *
   * @param waiters room for `count`; gets the pages that had a waiter
   * @returns how many had one
   */
  installed(first: number, count: number, waiters: Uint32Array): number {
    return this.#native.installed(first, count, waiters);
  }

  /**
   * requested → zero, where nobody waits for the page: there is nothing to install, and a touch finds it zero. Nothing has to be asked of the kernel.
   *
   * @param waiters room for `count`; gets the pages that have a waiter, which stay requested: they are to be installed
   * @returns how many have one
   */
  foundZero(first: number, count: number, waiters: Uint32Array): number {
    return this.#native.foundZero(first, count, waiters);
  }

  /** zero | removed → present: a fault there was answered with a zero page. False where the page was neither. */
  resolved(page: number): boolean {
    return this.#native.resolved(page);
  }

  /** requested → missing: the request will not be answered. Reports waiters like `installed`: they must be fetched again. */
  release(first: number, count: number, waiters: Uint32Array): number {
    return this.#native.release(first, count, waiters);
  }

  /** any → removed. Reports waiters like `installed`: they must be resolved with a zero page. */
  remove(first: number, count: number, waiters: Uint32Array): number {
    return this.#native.remove(first, count, waiters);
  }

  /** The first page of the run that is not requested (any more), or null. */
  firstNotRequested(first: number, count: number): number | null {
    const page = this.#native.firstNotRequested(first, count);
    return page < 0 ? null : page;
  }

  isRequested(first: number, count: number): boolean {
    return this.#native.firstNotRequested(first, count) < 0;
  }

  /** One of `PAGE`. */
  state(page: number): (typeof PAGE)[keyof typeof PAGE] {
    return this.#native.state(page) as (typeof PAGE)[keyof typeof PAGE];
  }

  /** Exact while no other thread changes pages; else off by the pages in motion. */
  counts(): LedgerCounts {
    this.#native.counts(this.#counts);
    const of = (state: number): number => this.#counts[state] ?? 0;
    return {
      missing: of(PAGE.missing),
      requested: of(PAGE.requested),
      present: of(PAGE.present),
      zero: of(PAGE.zero),
      removed: of(PAGE.removed),
    };
  }

  /** No page is missing or requested. Once true it stays true. */
  isWhole(): boolean {
    return this.#native.isWhole();
  }

  /** Requested pages with a waiter, ascending from page `from`, as many as `into` has room for. Returns their number. */
  waiters(into: Uint32Array, from = 0): number {
    return this.#native.waiters(into, from);
  }

  /** The first missing page at or after `from` and before `end`, or -1. */
  nextMissing(from: number, end: number): number {
    return this.#native.nextMissing(from, end);
  }

  /**
   * Puts right what a crash left, by what is known of the memory. `held`: the memory has the page, so it is present, whatever was noted.
   * `absent`: it has not: what was present was given back since, what was requested is missing. `unknown`: as noted, but for what was requested. Waiters
   * are forgotten: whoever recovers wakes them all. No other thread may have the ledger yet. Returns how many pages changed.
   */
  recover(first: number, count: number, seen: keyof typeof SEEN): number {
    return this.#native.recover(first, count, SEEN[seen]);
  }

  /** How far the migration is, as its owner numbers it: 0 at first. One store, and in the file as soon as it is made. */
  get stage(): number {
    return this.#native.stage();
  }

  set stage(stage: number) {
    this.#native.setStage(stage);
  }

  /** Opened, and whoever had it before died between reading an event and noting what it says: a removal may be unknown to it. */
  get diedReading(): boolean {
    return this.#native.diedReading();
  }

  /**
   * The install lock: shared around check + install + `installed`, exclusive around reading an event and `remove`. Held for one
   * synchronous stretch only, never across an await; it does not nest (EDEADLK). Writers go first.
   */
  lockShared(): void {
    this.#native.lockShared();
  }

  unlockShared(): void {
    this.#native.unlockShared();
  }

  lockExclusive(): void {
    this.#native.lockExclusive();
  }

  unlockExclusive(): void {
    this.#native.unlockExclusive();
  }

  /** Lets go of this thread's handle (and of the lock, if held). Idempotent. */
  close(): void {
    this.#native.close();
  }
}
