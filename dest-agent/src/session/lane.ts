/** A lane as the main thread sees it: a worker, typed messages both ways, one error path. */
import { basename } from 'node:path';
import { Worker } from 'node:worker_threads';
import { PagewakeError } from '../kit.ts';
import type { FromLane, LaneError, LaneStart, ToLane } from '../lanes/messages.ts';

type Kind = FromLane['type'];

interface Waiting {
  readonly kind: Kind;
  resolve(message: FromLane): void;
  reject(error: Error): void;
}

export class Lane {
  readonly #worker: Worker;
  #waiting: Waiting[] = [];
  #crash: Error | undefined;
  #over = false;

  /**
   * @param onMessage gets every message, also those that somebody waits for
   * @param onCrash the worker died of an error of its own: a bug
   */
  constructor(script: URL, start: LaneStart, onMessage: (message: FromLane) => void, onCrash: (error: Error) => void) {
    this.#worker = new Worker(script, {
      workerData: start,
      transferList: [start.peer],
      // What the kernel calls the thread: `top -H` tells the lanes apart.
      name: basename(script.pathname, '.ts'),
    });
    this.#worker.on('message', (message: FromLane) => {
      const waiting = this.#waiting.find(({ kind }) => kind === message.type);
      this.#waiting = this.#waiting.filter((one) => one !== waiting);
      onMessage(message);
      waiting?.resolve(message);
    });
    this.#worker.on('error', (error) => {
      this.#crash = error instanceof Error ? error : new Error(String(error));
      this.#rejectAll(this.#crash);
      if (!this.#over) onCrash(this.#crash);
    });
  }

  post(message: ToLane): void {
    this.#worker.postMessage(message);
  }

  /** The next message of a kind. Rejects where the lane crashes or is ended before it comes: nobody waits for the dead. */
  next<K extends Kind>(kind: K): Promise<Extract<FromLane, { type: K }>> {
    const promise = new Promise<FromLane>((resolve, reject) => {
      if (this.#crash) reject(this.#crash);
      else this.#waiting.push({ kind, resolve, reject });
    });
    // Whoever waits meets the rejection; that nobody does any more is no error of its own.
    promise.catch(() => undefined);
    return promise as Promise<Extract<FromLane, { type: K }>>;
  }

  async terminate(): Promise<void> {
    this.#over = true;
    this.#rejectAll(new Error('the lane was ended'));
    await this.#worker.terminate();
  }

  #rejectAll(error: Error): void {
    for (const waiting of this.#waiting.splice(0)) waiting.reject(error);
  }
}

export const fromLane = (error: LaneError): PagewakeError =>
  new PagewakeError(error.reason, error.message, error.metadata);
