import type { Logger } from '../kit.ts';

const FIRST = 20;
const THEN_EVERY = 1000;

/** Logs the first alarms whole, then a sample: one may come a thousand times a second. */
export class Alarms {
  readonly #log: Logger;
  #count = 0;

  constructor(log: Logger) {
    this.#log = log;
  }

  raise(message: string): void {
    this.#count++;
    if (this.#count <= FIRST || this.#count % THEN_EVERY === 0) this.#log.warn({ alarms: this.#count }, message);
  }
}
