/** Tries a lost source again: soon at first, then every few seconds, for as long as the migration is interrupted. */

const FIRST_MS = 100;
const MAX_MS = 5000;

export class Reopener {
  readonly #attempt: () => Promise<boolean>;
  readonly #wanted: () => boolean;
  #timer: NodeJS.Timeout | undefined;
  #delayMs = FIRST_MS;
  #running = false;

  /** @param attempt resolves with true once the source is back; must not reject */
  constructor(attempt: () => Promise<boolean>, wanted: () => boolean) {
    this.#attempt = attempt;
    this.#wanted = wanted;
  }

  start(): void {
    this.#delayMs = FIRST_MS;
    this.#schedule();
  }

  /** The orchestrator says that it is worth a try. */
  now(): void {
    this.start();
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #schedule(): void {
    this.stop();
    this.#timer = setTimeout(() => void this.#run(), this.#delayMs);
    this.#delayMs = Math.min(this.#delayMs * 2, MAX_MS);
  }

  async #run(): Promise<void> {
    if (this.#running || !this.#wanted()) return;
    this.#running = true;
    const back = await this.#attempt().finally(() => (this.#running = false));
    if (!back && this.#wanted()) this.#schedule();
  }
}
