/** How long threads waited for pages that somebody had to send. */
import { createHistogram } from 'node:perf_hooks';
import { monotonicMs } from '../adapters/ledger.ts';
import type { Counters, FaultCounter } from './counters.ts';
import type { Waiter } from './pending.ts';

/** An hour; what takes longer is not recorded. */
const HIGHEST_NS = 3_600_000_000_000;
const NS_A_MS = 1e6;
const NS_A_US = 1000;

export class StallClock {
  readonly #stalls = createHistogram({ lowest: 1, highest: HIGHEST_NS, figures: 3 });
  /** A stall that began before this began here: until then no guest ran. */
  #fromMs = 0;

  /** From now on a guest runs. */
  start(): void {
    this.#fromMs = monotonicMs();
  }

  /** @param untilMs when the waiter was let go */
  record(waiter: Waiter, untilMs: number): void {
    this.#stalls.record(Math.max(1, Math.round((untilMs - Math.max(waiter.readAtMs, this.#fromMs)) * NS_A_MS)));
  }

  writeTo(counters: Counters<FaultCounter>): void {
    if (this.#stalls.count === 0) return;
    counters.set('stallP50Us', this.#stalls.percentile(50) / NS_A_US);
    counters.set('stallP99Us', this.#stalls.percentile(99) / NS_A_US);
    counters.set('stallMaxUs', this.#stalls.max / NS_A_US);
  }
}
