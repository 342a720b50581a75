/** What a migration tells while it runs: a closed union, and the queue that hands it to a reader that may be slow. */
import type { PagewakeError } from '@pagewake/agent-kit';
import type { Migration } from '@pagewake/proto';
import type { MigrationPhase } from './phase.ts';

/**
 * One thing done on the way, in the order in which they happen. `hand-over` and `arm`: where the VMM gives its memory before its guest stops.
 * `settle` is the part of `pause` after the guest has stopped: with it the blackout begins. `scan` and `save` run side by side.
 */
export type Step =
  | 'check'
  | 'register'
  | 'start'
  | 'hand-over'
  | 'arm'
  | 'pause'
  | 'settle'
  | 'scan'
  | 'save'
  | 'start-destination'
  | 'release'
  | 'end-source';

export type MigrationEvent =
  /** A phase began. `ms` is how long the one before it took. */
  | { readonly type: 'phase'; readonly phase: MigrationPhase; readonly previous: MigrationPhase; readonly ms: number }
  | { readonly type: 'step'; readonly step: Step; readonly ms: number }
  /** The destination agent knows the migration by this name from now on. */
  | { readonly type: 'started'; readonly migrationId: string; readonly vmId: string; readonly generation: number }
  /** The destination's own view, at every change there and at least every `progressIntervalMs`. */
  | { readonly type: 'progress'; readonly migration: Migration }
  /** The destination has lost the source. Its guest's faults wait; it tries again by itself. */
  | { readonly type: 'interrupted'; readonly error: PagewakeError }
  | { readonly type: 'recovered' }
  | { readonly type: 'warning'; readonly message: string };

/**
 * Events for one reader, in order. A `progress` that nobody has read yet gives way to the next one, so a reader that is slow, or that
 * never comes, costs no more than a few events.
 */
export class EventQueue implements AsyncIterable<MigrationEvent> {
  readonly #events: MigrationEvent[] = [];
  #ended = false;
  #error: { readonly value: unknown } | undefined;
  #wake: (() => void) | undefined;

  push(event: MigrationEvent): void {
    if (event.type === 'progress' && this.#events.at(-1)?.type === 'progress') this.#events.pop();
    this.#events.push(event);
    this.#wake?.();
  }

  end(): void {
    this.#ended = true;
    this.#wake?.();
  }

  /** The reader gets what is queued, then this. */
  fail(error: unknown): void {
    this.#error = { value: error };
    this.end();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<MigrationEvent, void, undefined> {
    for (;;) {
      for (let event = this.#events.shift(); event !== undefined; event = this.#events.shift()) yield event;
      if (this.#ended) break;
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    if (this.#error !== undefined) throw this.#error.value;
  }
}
