/** What is done once a page's waiters can go on: they are counted by the call that let them, and those who asked by message are answered. */
import { callAfterWrite, type InstallCall, type MemoryTraits, type PagePlace } from '@pagewake/core';
import { COUNTER_OF_CALL, STAGE2_COUNTER_OF_CALL, type Counters, type FaultCounter } from './counters.ts';
import type { FromLane, Stage2Page } from './messages.ts';
import type { Waiter } from './pending.ts';

export interface ResolutionsOptions {
  readonly traits: MemoryTraits;
  readonly counters: Counters<FaultCounter>;
  post(message: FromLane): void;
}

export class Resolutions {
  readonly #o: ResolutionsOptions;
  #answers: Stage2Page[] = [];

  constructor(options: ResolutionsOptions) {
    this.#o = options;
  }

  /** @param call what brought the page */
  note(call: InstallCall, { region, page }: PagePlace, waiters: readonly Waiter[]): void {
    for (const { origin, stage2Id: id } of waiters) {
      const last = call === 'write' ? callAfterWrite(origin, this.#o.traits) : call;
      this.#o.counters.add(COUNTER_OF_CALL[last]);
      if (origin !== 'user-space') this.#o.counters.add(STAGE2_COUNTER_OF_CALL[last]);
      if (id !== undefined) this.#answer({ id, ledgerPage: region.firstLedgerPage + page });
    }
  }

  /** Those of one turn go in one message. */
  #answer(answer: Stage2Page): void {
    this.#answers.push(answer);
    if (this.#answers.length > 1) return;
    queueMicrotask(() => {
      const pages = this.#answers;
      this.#answers = [];
      this.#o.post({ type: 'stage2-resolved', pages });
    });
  }
}
