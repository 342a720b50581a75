/** Events of one connection for any number of readers, each from the moment on at which it asked. */
import type { QmpEvent } from './messages.ts';

interface Listener {
  readonly onEvent: (event: QmpEvent) => void;
  readonly onEnd: () => void;
}

export class EventLog {
  readonly #listeners = new Set<Listener>();
  #ended = false;

  push(event: QmpEvent): void {
    for (const { onEvent } of [...this.#listeners]) onEvent(event);
  }

  end(): void {
    this.#ended = true;
    for (const { onEnd } of [...this.#listeners]) onEnd();
    this.#listeners.clear();
  }

  listen(onEvent: (event: QmpEvent) => void, onEnd: () => void): () => void {
    const listener = { onEvent, onEnd };
    if (this.#ended) onEnd();
    else this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Listens at once, not when the first event is asked for. */
  read(): AsyncIterable<QmpEvent> {
    const queue: QmpEvent[] = [];
    let wake = (): void => undefined;
    let ended = false;
    const stop = this.listen(
      (event) => {
        queue.push(event);
        wake();
      },
      () => {
        ended = true;
        wake();
      },
    );
    async function* events(): AsyncGenerator<QmpEvent, void, undefined> {
      try {
        for (;;) {
          for (let event = queue.shift(); event !== undefined; event = queue.shift()) yield event;
          if (ended) return;
          await new Promise<void>((resolve) => (wake = resolve));
        }
      } finally {
        stop();
      }
    }
    return events();
  }
}
