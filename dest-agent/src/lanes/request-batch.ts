/** What goes to the source in one message: the pages that are waited for, and behind them their neighbours. */
import { monotonicMs } from '../adapters/ledger.ts';
import type { FaultOnWire, FaultRequests } from '../adapters/page-source.ts';
import type { PendingFault } from './pending.ts';

/** Of a trace context's flags. */
const SAMPLED = 1;

export class RequestBatch {
  #faults: FaultOnWire[] = [];
  #neighbours: FaultOnWire[] = [];

  get empty(): boolean {
    return this.#faults.length === 0 && this.#neighbours.length === 0;
  }

  /** Runs that are put here go behind every fault of the batch. */
  get neighbours(): FaultOnWire[] {
    return this.#neighbours;
  }

  ask(pending: PendingFault): void {
    const { traceIdBytes, requestSpanId, sampled } = pending.trace;
    // Nobody looks at the time of another.
    if (sampled) pending.requestedAtMs = monotonicMs();
    this.#faults.push({
      faultId: pending.faultId,
      region: pending.region.index,
      page: pending.page,
      pageCount: 0,
      trace: { traceId: traceIdBytes, spanId: requestSpanId, flags: sampled ? SAMPLED : 0 },
    });
  }

  sendTo(stream: FaultRequests): void {
    const faults = this.#neighbours.length === 0 ? this.#faults : [...this.#faults, ...this.#neighbours];
    this.clear();
    stream.request(faults);
  }

  clear(): void {
    this.#faults = [];
    this.#neighbours = [];
  }
}
