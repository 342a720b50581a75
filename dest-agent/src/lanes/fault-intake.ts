/**
 * FaultIntake: from what the kernel says on a userfaultfd to faults by region and page. Every event that is there is read before one is acted on:
 * a fault can be read before the REMOVE that caused it.
 */
import type { GuestLayout, PagePlace } from '@pagewake/core';
import type { PageLedger, Uffd } from '../adapters/ledger.ts';
import { UFFD_EVENT, UFFD_EVENT_BATCH, UFFD_EVENT_FIELDS, UFFD_FAULT_FLAG } from '../adapters/ledger.ts';

/** Fields of an event; a range has its end where a fault has its flags. */
const TYPE = 0;
const ADDRESS = 1;
const FLAGS = 2;
const END = 2;
const THREAD = 3;
const READ_AT_MS = 4;

export interface FaultEvent {
  readonly place: PagePlace;
  readonly kind: 'missing' | 'minor';
  readonly threadId: number;
  readonly readAtMs: number;
}

export interface IntakeHandlers {
  /** May be under the install lock: only the ledger is told. `first` and `count` in ledger pages. */
  onRemoved(first: number, count: number): void;
  onFault(event: FaultEvent): void;
  /** Every event of one reading has been handed over. */
  onDrained(): void;
  onClosed(message: string): void;
  onAlarm(message: string): void;
}

/** What is read here of a userfaultfd. */
export type EventSource = Pick<Uffd, 'poll' | 'drain'>;

export class FaultIntake {
  readonly #uffd: EventSource;
  readonly #layout: GuestLayout;
  readonly #lock: PageLedger | undefined;
  readonly #handlers: IntakeHandlers;
  readonly #events = new Float64Array(UFFD_EVENT_BATCH * UFFD_EVENT_FIELDS);

  /** @param lock given where the VMM sends REMOVE events (see PageInstaller) */
  constructor(uffd: EventSource, layout: GuestLayout, lock: PageLedger | undefined, handlers: IntakeHandlers) {
    this.#uffd = uffd;
    this.#layout = layout;
    this.#lock = lock;
    this.#handlers = handlers;
  }

  /** From now on events are handed over as they come. */
  start(): void {
    const lock = this.#lock;
    this.#uffd.poll(this.#events, (count) => this.#onBatch(count), {
      onClosed: (error) => this.#handlers.onClosed(error.message),
      ...(lock ? { underLock: { ledger: lock, onEvents: (count: number) => this.#applyOthers(count) } } : {}),
    });
  }

  /** Reads what is there without waiting for the loop. */
  drain(): void {
    const faults: FaultEvent[] = [];
    this.#readRest(faults);
    this.#act(faults);
  }

  #onBatch(count: number): void {
    const faults: FaultEvent[] = [];
    if (!this.#lock) this.#applyOthers(count);
    this.#collect(count, faults);
    if (count === UFFD_EVENT_BATCH) this.#readRest(faults);
    this.#act(faults);
  }

  #act(faults: readonly FaultEvent[]): void {
    for (const fault of faults) this.#handlers.onFault(fault);
    this.#handlers.onDrained();
  }

  #readRest(faults: FaultEvent[]): void {
    for (;;) {
      const count = this.#readBatch();
      this.#collect(count, faults);
      if (count < UFFD_EVENT_BATCH) return;
    }
  }

  #readBatch(): number {
    this.#lock?.lockExclusive();
    try {
      const count = this.#uffd.drain(this.#events);
      this.#applyOthers(count);
      return count;
    } finally {
      this.#lock?.unlockExclusive();
    }
  }

  #collect(count: number, faults: FaultEvent[]): void {
    for (let i = 0; i < count; i++) {
      if (this.#field(i, TYPE) !== UFFD_EVENT.pagefault) continue;
      const place = this.#layout.atAddress(this.#field(i, ADDRESS));
      if (!place) {
        this.#handlers.onAlarm('a fault outside every region: the VMM registered more memory than it handed over');
        continue;
      }
      const kind = (this.#field(i, FLAGS) & UFFD_FAULT_FLAG.minor) === 0 ? 'missing' : 'minor';
      faults.push({ place, kind, threadId: this.#field(i, THREAD), readAtMs: this.#field(i, READ_AT_MS) });
    }
  }

  /** What is not a fault. */
  #applyOthers(count: number): void {
    for (let i = 0; i < count; i++) {
      const type = this.#field(i, TYPE);
      if (type === UFFD_EVENT.remove || type === UFFD_EVENT.unmap)
        this.#removed(this.#field(i, ADDRESS), this.#field(i, END));
      else if (type !== UFFD_EVENT.pagefault)
        this.#handlers.onAlarm(`userfaultfd event 0x${type.toString(16)}: a VMM must not enable FORK or REMAP events`);
    }
  }

  #field(event: number, field: number): number {
    return this.#events[event * UFFD_EVENT_FIELDS + field] ?? 0;
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
