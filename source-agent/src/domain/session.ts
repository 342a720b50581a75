import { randomBytes } from 'node:crypto';
import type { PagewakeError } from '@pagewake/agent-kit';
import type { Vm } from './vm.ts';

const SESSION_BYTES = 16;

/**
 * One destination's right to read one generation of a VM, which may be given before the VM is paused. Ends at most once, and takes its
 * streams with it.
 */
export class Session {
  readonly id: Buffer = randomBytes(SESSION_BYTES);
  readonly vm: Vm;
  readonly destinationId: string;
  #ended: PagewakeError | undefined;
  readonly #streams = new Set<(error: PagewakeError) => void>();
  readonly #paused = Promise.withResolvers<void>();

  constructor(vm: Vm, destinationId: string) {
    this.vm = vm;
    this.destinationId = destinationId;
    // Not every session has a stream that waits.
    this.#paused.promise.catch(() => undefined);
  }

  /** Why the session is over; undefined while it is not. */
  get ended(): PagewakeError | undefined {
    return this.#ended;
  }

  /** Resolves once the VM stands still for good, in the very turn in which it was paused; rejects with the session's end if that comes before. */
  get untilPaused(): Promise<void> {
    return this.#paused.promise;
  }

  /** The VM is paused and may be read. Idempotent. */
  paused(): void {
    this.#paused.resolve();
  }

  /** Calls `onEnd` once when the session ends (at once if it has); returns what takes it back. */
  attach(onEnd: (error: PagewakeError) => void): () => void {
    if (this.#ended === undefined) this.#streams.add(onEnd);
    else onEnd(this.#ended);
    return () => this.#streams.delete(onEnd);
  }

  end(error: PagewakeError): void {
    if (this.#ended !== undefined) return;
    this.#ended = error;
    this.#paused.reject(error);
    const streams = [...this.#streams];
    this.#streams.clear();
    for (const onEnd of streams) onEnd(error);
  }
}
