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
    pending.requestedAtMs = monotonicMs();
    const { traceId, requestSpanId, sampled } = pending.trace;
    this.#faults.push({
      faultId: pending.faultId,
      region: pending.region.index,
      page: pending.page,
      pageCount: 0,
      trace: {
        traceId: Buffer.from(traceId, 'hex'),
        spanId: Buffer.from(requestSpanId, 'hex'),
        flags: sampled ? SAMPLED : 0,
      },
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
