/** A lane as the main thread sees it: a worker, typed messages both ways, one error path. */
import { Worker } from 'node:worker_threads';
import type { FromLane, LaneStart, ToLane } from '../lanes/messages.ts';

type Kind = FromLane['type'];

export class Lane {
  readonly #worker: Worker;
  readonly #waiting = new Map<Kind, ((message: FromLane) => void)[]>();
  #over = false;

  /**
   * @param onMessage gets every message, also those that somebody waits for
   * @param onCrash the worker died of an error of its own: a bug
   */
  constructor(script: URL, start: LaneStart, onMessage: (message: FromLane) => void, onCrash: (error: Error) => void) {
    this.#worker = new Worker(script, { workerData: start, transferList: [start.peer] });
    this.#worker.on('message', (message: FromLane) => {
      const waiting = this.#waiting.get(message.type)?.shift();
      onMessage(message);
      waiting?.(message);
    });
    this.#worker.on('error', (error) => {
      if (!this.#over) onCrash(error instanceof Error ? error : new Error(String(error)));
    });
  }

  post(message: ToLane): void {
    this.#worker.postMessage(message);
  }

  /** Resolves with the next message of a kind. The caller races it against the session's end. */
  next<K extends Kind>(kind: K): Promise<Extract<FromLane, { type: K }>> {
    return new Promise((resolve) => {
      const queue = this.#waiting.get(kind) ?? [];
      queue.push((message) => resolve(message as Extract<FromLane, { type: K }>));
      this.#waiting.set(kind, queue);
    });
  }

  async terminate(): Promise<void> {
    this.#over = true;
    await this.#worker.terminate();
  }
}
