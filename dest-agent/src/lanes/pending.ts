/** The faults that are not resolved yet: which page, who waits, since when. Kept by the fault lane alone. */
import type { FaultOrigin } from '@pagewake/core';
import type { Region } from '@pagewake/core';

/** One event or request that waits for a page. */
export interface Waiter {
  readonly origin: FaultOrigin;
  readonly threadId: number;
  /** When the event was read, milliseconds of the monotonic clock. A stall's clock runs from here through every retry. */
  readonly readAtMs: number;
  /** A stage-2 request of the VMM channel that must be answered. */
  readonly stage2Id: number | undefined;
}

/** Where a fault stands in the migration's trace. Goes with every request, sampled or not. */
export interface FaultTrace {
  readonly sampled: boolean;
  readonly traceId: string;
  readonly parentSpanId: string;
  readonly faultSpanId: string;
  /** These two go over the wire with every fault. */
  readonly traceIdBytes: Uint8Array;
  readonly requestSpanId: Uint8Array;
}

/** A page that this lane has asked the source for. */
export interface PendingFault {
  readonly faultId: number;
  readonly ledgerPage: number;
  readonly region: Region;
  readonly page: number;
  readonly waiters: Waiter[];
  readonly trace: FaultTrace;
  requestedAtMs: number;
  /** Frames refused so far. */
  refusals: number;
}

export class PendingFaults {
  readonly #byId = new Map<number, PendingFault>();
  readonly #byPage = new Map<number, PendingFault>();
  /** Waiters of pages that the bulk lane has asked for. */
  readonly #onBulk = new Map<number, Waiter[]>();
  #nextId = 1;

  get size(): number {
    return this.#byId.size;
  }

  add(fault: Omit<PendingFault, 'faultId' | 'requestedAtMs' | 'refusals'>): PendingFault {
    const pending: PendingFault = { ...fault, faultId: this.nextId(), requestedAtMs: 0, refusals: 0 };
    this.#byId.set(pending.faultId, pending);
    this.#byPage.set(pending.ledgerPage, pending);
    return pending;
  }

  /** For a request of this lane, whether somebody waits for it or not. */
  nextId(): number {
    const id = this.#nextId;
    // Wraps as the wire's uint32 does; four billion faults are never outstanding at once.
    this.#nextId = id === 0xffff_ffff ? 1 : id + 1;
    return id;
  }

  byId(faultId: number): PendingFault | undefined {
    return this.#byId.get(faultId);
  }

  all(): PendingFault[] {
    return [...this.#byId.values()];
  }

  /** Notes one more waiter on a page that somebody has asked for. */
  join(ledgerPage: number, waiter: Waiter): void {
    const own = this.#byPage.get(ledgerPage);
    if (own) {
      own.waiters.push(waiter);
      return;
    }
    const others = this.#onBulk.get(ledgerPage);
    if (others) others.push(waiter);
    else this.#onBulk.set(ledgerPage, [waiter]);
  }

  /** Takes a fault out: it is resolved, or is about to be by other means. */
  settle(pending: PendingFault): void {
    this.#byId.delete(pending.faultId);
    this.#byPage.delete(pending.ledgerPage);
  }

  settlePage(ledgerPage: number): Waiter[] {
    const own = this.#byPage.get(ledgerPage);
    if (own) this.settle(own);
    return [...(own?.waiters ?? []), ...this.takeOnBulk(ledgerPage)];
  }

  /** The waiters of a page of the bulk lane's, which now has it or has given it back. */
  takeOnBulk(ledgerPage: number): Waiter[] {
    const waiters = this.#onBulk.get(ledgerPage) ?? [];
    this.#onBulk.delete(ledgerPage);
    return waiters;
  }
}
