/** Resolves what needs no round trip: minor faults, pages that are known to be zero, pages that are there already. */
import { callForZero, type InstallCall, type MemoryTraits, type PagePlace } from '@pagewake/core';
import { PAGE, type PageLedger } from '../adapters/ledger.ts';
import type { Outcome, PlacedRun, VmMemory } from '../adapters/memory.ts';
import { describe, NO_BYTES } from './installer.ts';
import type { Waiter } from './pending.ts';
import type { RetryQueue } from './retry-queue.ts';

export interface LocalResolverOptions {
  readonly memory: VmMemory;
  readonly ledger: PageLedger;
  readonly traits: MemoryTraits;
  readonly removeEvents: boolean;
  readonly retries: RetryQueue;
  /** The waiters go on, thanks to this call. */
  resolved(call: InstallCall, place: PagePlace, waiters: readonly Waiter[]): void;
  /** The page turned out to be missing after all. */
  missing(place: PagePlace, waiter: Waiter): void;
  vmmExited(): void;
  alarm(message: string): void;
  /** The waiter cannot be helped, so the guest cannot go on: the migration ends, and ends its waiters. */
  fatal(message: string): void;
}

export class LocalResolver {
  readonly #o: LocalResolverOptions;
  #zeros: Uint8Array = NO_BYTES;

  constructor(options: LocalResolverOptions) {
    this.#o = options;
  }

  /** The content is in the cache, only the page table lacks it. */
  minor(place: PagePlace, waiter: Waiter): void {
    const run = runOf(place);
    // In the file, and not by us, or not yet by our word: what is there may be a zero that nobody meant. The ledger decides.
    if (this.#o.ledger.state(place.region.firstLedgerPage + place.page) !== PAGE.present) {
      this.#o.missing(place, waiter);
      return;
    }
    const outcome = this.#o.memory.continue(run);
    switch (outcome.kind) {
      case 'present':
        // EEXIST does not wake: whoever else set the entry may have done it before this thread slept.
        this.#o.memory.clearBits(run);
        this.#o.memory.wake(run);
        this.#o.resolved('continue', place, [waiter]);
        return;
      case 'done':
        this.#o.memory.clearBits(run);
        this.#o.resolved('continue', place, [waiter]);
        return;
      case 'absent':
        // Gone from the cache since the event was queued: given back, or thrown away. Its bit stays as it is.
        this.#o.missing(place, waiter);
        return;
      default:
        this.#postpone('UFFDIO_CONTINUE', run, outcome, () => this.minor(place, waiter));
    }
  }

  /**
   * The ledger has the page, yet a thread waits: nearly always the event was queued before the page came. But a VMM may also have thrown the page
   * away without a REMOVE event; then a wake alone would have the same fault come back for ever. ZEROPAGE tells the two apart.
   */
  present(place: PagePlace, waiter: Waiter): void {
    const run = runOf(place);
    const { memory, traits } = this.#o;
    const asked = waiter.origin === 'stage2-exit';
    // Only a guest_memfd's write() leaves a page alone that is there. Who asked about another comes back by the userfaultfd where it is not.
    if (traits.huge || (asked && !(traits.file === 'guest-memfd' && traits.writable))) {
      this.#goOn(place, waiter);
      return;
    }
    const outcome = asked ? memory.write(run, this.zeroPage(run.region.pageSizeBytes), 0) : memory.zeropage(run);
    switch (outcome.kind) {
      case 'present':
        this.#goOn(place, waiter);
        return;
      case 'done':
        memory.clearBits(run);
        if (!this.#o.removeEvents)
          this.#o.alarm(`${describe(run)} was discarded by the VMM without a REMOVE event; it reads as zeros`);
        this.#o.resolved(asked ? 'write' : 'zeropage', place, [waiter]);
        return;
      default:
        this.#postpone(asked ? 'write() of zeros' : 'UFFDIO_ZEROPAGE', run, outcome, () => this.present(place, waiter));
    }
  }

  /** The page is there: its bit is clear before anybody hears of it. */
  #goOn(place: PagePlace, waiter: Waiter): void {
    const run = runOf(place);
    this.#o.memory.clearBits(run);
    this.#o.resolved(this.#wake(run, [waiter]), place, [waiter]);
  }

  /** Lets who sleeps on a page that is there go on: where MINOR is registered a thread that is merely woken comes back with a second event. */
  #wake(run: PlacedRun, waiters: readonly Waiter[]): 'continue' | 'wake' {
    const { memory, traits } = this.#o;
    const trapped = waiters.some(({ origin }) => origin !== 'stage2-exit');
    if (trapped && traits.minor && memory.continue(run).kind === 'done') return 'continue';
    memory.wake(run);
    return 'wake';
  }

  /** Known to be zero, or given back by the guest. */
  zero(place: PagePlace, waiters: readonly Waiter[]): void {
    const run = runOf(place);
    const { memory, ledger } = this.#o;
    const state = ledger.state(place.region.firstLedgerPage + place.page);
    if (state !== PAGE.zero && state !== PAGE.removed) {
      // Resolved for somebody else while this waited for a retry, and written to since, perhaps: write() would not notice.
      for (const waiter of waiters) this.present(place, waiter);
      return;
    }
    const call = callForZero(waiters[0]?.origin ?? 'user-space', this.#o.traits);
    const outcome = this.#installZero(call, run);
    switch (outcome.kind) {
      case 'done':
      case 'present':
        memory.clearBits(run);
        ledger.resolved(place.region.firstLedgerPage + place.page);
        if (outcome.kind === 'present' || call === 'write') this.#wake(run, waiters);
        this.#o.resolved(call, place, waiters);
        return;
      default:
        this.#postpone(`${call} of zeros`, run, outcome, () => this.zero(place, waiters));
    }
  }

  #installZero(call: InstallCall, run: PlacedRun): Outcome {
    if (call === 'zeropage') return this.#o.memory.zeropage(run);
    const page = this.zeroPage(run.region.pageSizeBytes);
    return call === 'copy' ? this.#o.memory.copy(run, page, 0) : this.#o.memory.write(run, page, 0);
  }

  zeroPage(sizeBytes: number): Uint8Array {
    if (this.#zeros.length < sizeBytes) this.#zeros = new Uint8Array(sizeBytes);
    return this.#zeros;
  }

  #postpone(call: string, run: PlacedRun, outcome: Outcome, retry: () => void): void {
    switch (outcome.kind) {
      case 'again':
        this.#o.retries.afterDrain(retry);
        return;
      case 'no-memory':
        this.#o.alarm(`no memory for ${describe(run)}; its waiter stays blocked and is tried again`);
        this.#o.retries.afterBackOff(retry);
        return;
      case 'exited':
        this.#o.vmmExited();
        return;
      default:
        this.#o.fatal(`${call} of ${describe(run)}: ${outcome.kind === 'refused' ? outcome.errno : outcome.kind}`);
    }
  }
}

export const runOf = (place: PagePlace): PlacedRun => ({ region: place.region, firstPage: place.page, pageCount: 1 });
