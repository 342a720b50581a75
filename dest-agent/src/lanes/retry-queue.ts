/** What could not be done now. Every fault's clock goes on running meanwhile; nothing is ever dropped. */

const BACKOFF_MS = 100;

export class RetryQueue {
  readonly #drainEvents: () => void;
  readonly #afterwards: () => void;
  #waiting: (() => void)[] = [];
  #stopped = false;

  /**
   * @param drainEvents reads and handles what the userfaultfd has
   * @param afterwards runs once after the retries of one round
   */
  constructor(drainEvents: () => void, afterwards: () => void) {
    this.#drainEvents = drainEvents;
    this.#afterwards = afterwards;
  }

  /**
   * After EAGAIN: an event is pending and has to be read before the call can succeed. The remover is woken by that read, but its range stays
   * locked until it has run, so the retry gives the loop a turn first.
   */
  afterDrain(retry: () => void): void {
    this.#waiting.push(retry);
    if (this.#waiting.length > 1) return;
    setImmediate(() => {
      this.#drainEvents();
      const retries = this.#waiting;
      this.#waiting = [];
      this.#run(retries);
    });
  }

  /** After ENOMEM. */
  afterBackOff(retry: () => void): void {
    setTimeout(() => this.#run([retry]), BACKOFF_MS);
  }

  /** The ranges are the kernel's again: nobody waits, and a call on them would be refused. */
  stop(): void {
    this.#stopped = true;
  }

  #run(retries: readonly (() => void)[]): void {
    if (this.#stopped) return;
    for (const again of retries) again();
    this.#afterwards();
  }
}
