/**
 * FaultIntake: from what the kernel says on a userfaultfd to faults by region and page. Every event that is there is read before one is acted on:
 * a fault can be read before the REMOVE that caused it.
 */
import type { GuestLayout, PagePlace } from '@pagewake/core';
import { UFFD_EVENT, UFFD_EVENT_BATCH, UFFD_EVENT_FIELDS, UFFD_FAULT_FLAG } from '../adapters/ledger.ts';

export interface FaultEvent {
  readonly place: PagePlace;
  readonly kind: 'missing' | 'minor';
  readonly threadId: number;
  readonly readAtMs: number;
}

/** The part of the userfaultfd that the intake needs. */
export interface EventSource {
  /** Reads what is there without waiting, at most one batch; 0 when empty. */
  drain(events: Float64Array): number;
}

/** The part of the ledger that orders installs against the reading of REMOVE events. */
export interface InstallLock {
  lockExclusive(): void;
  unlockExclusive(): void;
}

export interface IntakeHandlers {
  /** Inside the lock: only the ledger is told. `first` and `count` in ledger pages. */
  onRemoved(first: number, count: number): void;
  onFault(event: FaultEvent): void;
  onAlarm(message: string): void;
}

export class FaultIntake {
  readonly #source: EventSource;
  readonly #layout: GuestLayout;
  readonly #lock: InstallLock | undefined;
  readonly #handlers: IntakeHandlers;
  readonly #events = new Float64Array(UFFD_EVENT_BATCH * UFFD_EVENT_FIELDS);

  /** @param lock given where the VMM sends REMOVE events (see PageInstaller) */
  constructor(source: EventSource, layout: GuestLayout, lock: InstallLock | undefined, handlers: IntakeHandlers) {
    this.#source = source;
    this.#layout = layout;
    this.#lock = lock;
    this.#handlers = handlers;
  }

  /** Reads until nothing is left, then acts. */
  drain(): void {
    const faults: FaultEvent[] = [];
    for (;;) {
      const count = this.#readBatch(faults);
      if (count < UFFD_EVENT_BATCH) break;
    }
    for (const fault of faults) this.#handlers.onFault(fault);
  }

  #readBatch(faults: FaultEvent[]): number {
    this.#lock?.lockExclusive();
    try {
      const count = this.#source.drain(this.#events);
      for (let i = 0; i < count; i++) this.#take(i * UFFD_EVENT_FIELDS, faults);
      return count;
    } finally {
      this.#lock?.unlockExclusive();
    }
  }

  #take(at: number, faults: FaultEvent[]): void {
    const [type = 0, address = 0, flags = 0, threadId = 0, readAtMs = 0] = this.#events.subarray(at, at + UFFD_EVENT_FIELDS);
    switch (type) {
      case UFFD_EVENT.pagefault: {
        const place = this.#layout.atAddress(address);
        if (!place) {
          this.#handlers.onAlarm('a fault outside every region: the VMM registered more memory than it handed over');
          return;
        }
        const kind = (flags & UFFD_FAULT_FLAG.minor) === 0 ? 'missing' : 'minor';
        faults.push({ place, kind, threadId, readAtMs });
        return;
      }
      case UFFD_EVENT.remove:
      case UFFD_EVENT.unmap:
        this.#removed(address, flags);
        return;
      default:
        this.#handlers.onAlarm(`userfaultfd event ${type.toString(16)} is not handled: the VMM must not enable FORK or REMAP events`);
    }
  }

  /** A range of addresses may span regions and what lies between them. */
  #removed(start: number, end: number): void {
    for (const region of this.#layout.regions) {
      const from = Math.max(start, region.address);
      const to = Math.min(end, region.address + region.sizeBytes);
      if (from >= to) continue;
      const first = Math.floor((from - region.address) / region.pageSizeBytes);
      const last = Math.ceil((to - region.address) / region.pageSizeBytes);
      this.#handlers.onRemoved(region.firstLedgerPage + first, last - first);
    }
  }
}
