/** The blackout as two QEMUs tell it: one picture of both from their events, and waits on it. */
import { UserError } from '@pagewake/agent-kit';
import { cancelledByCaller } from '../../errors.ts';
import type { QmpClient } from '../../qmp/client.ts';
import type { QmpClosed } from '../../qmp/errors.ts';
import type { QmpEvent } from '../../qmp/messages.ts';
import { ControlLost, GuestNeverRan } from '../driver.ts';

/** One side since `watch`. */
export interface Seen {
  /** Of its migration, as its events say. */
  readonly status: string | undefined;
  readonly stoppedAtMs: number | undefined;
  readonly resumedAtMs: number | undefined;
  readonly ended: QmpClosed | undefined;
}

type Writable<T> = { -readonly [K in keyof T]: T[K] };
type WhichSide = 'source' | 'destination';

const NOTHING: Seen = { status: undefined, stoppedAtMs: undefined, resumedAtMs: undefined, ended: undefined };

export class Switchover {
  readonly #seen: Readonly<Record<WhichSide, Writable<Seen>>> = { source: { ...NOTHING }, destination: { ...NOTHING } };
  readonly #stop: readonly (() => void)[];
  readonly #looks = new Set<() => void>();

  /** `onStop`: called in the same turn in which the source's STOP is read. */
  constructor(source: QmpClient, destination: QmpClient, onStop: () => void) {
    const follow = (side: WhichSide, client: QmpClient): (() => void) =>
      client.listen(
        (event) => {
          this.#note(side, event);
          if (side === 'source' && event.type === 'stop') onStop();
          this.look();
        },
        (ended) => {
          this.#seen[side].ended = ended;
          this.look();
        },
      );
    this.#stop = [follow('source', source), follow('destination', destination)];
  }

  get source(): Seen {
    return this.#seen.source;
  }

  get destination(): Seen {
    return this.#seen.destination;
  }

  /** Resolves with the first value that `look` gives, rejects with what it throws. Looks at once and after each event. */
  until<T>(look: () => T | undefined, { signal, timeoutMs, what }: WaitOptions = {}): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const settled = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', onAbort);
        this.#looks.delete(again);
      };
      const onAbort = (): void => {
        settled();
        reject(cancelledByCaller());
      };
      const tooLate = (): void => {
        settled();
        reject(new UserError(`${what ?? 'QEMU'} did not come in ${String(timeoutMs)} ms`));
      };
      const again = (): void => {
        try {
          const value = look();
          if (value === undefined) return;
          settled();
          resolve(value);
        } catch (error) {
          settled();
          reject(error);
        }
      };
      const timer = timeoutMs === undefined ? undefined : setTimeout(tooLate, timeoutMs);
      this.#looks.add(again);
      if (signal?.aborted === true) onAbort();
      else {
        signal?.addEventListener('abort', onAbort, { once: true });
        again();
      }
    });
  }

  /** For what is no event of theirs. */
  look(): void {
    for (const look of [...this.#looks]) look();
  }

  /**
   * Throws GuestNeverRan where the destination has given the migration up, as it can no more run the guest; and where its connection ended
   * before the device state could reach it. Afterwards: ControlLost over a Unix socket, else how the connection ended.
   */
  refuseIfDestinationGaveUp(who: string, state: 'not-sent' | 'sent', unix = false): void {
    const { status, resumedAtMs, ended } = this.destination;
    if (resumedAtMs !== undefined) return;
    if (status === 'failed') {
      throw new GuestNeverRan(`${who} gave the migration up; what it printed last says why. Start it anew`);
    }
    if (ended === undefined) return;
    if (state === 'not-sent') throw new GuestNeverRan(`${ended.message}; its guest cannot run`, 1, { cause: ended });
    // RESUME is written before the first vCPU runs. A Unix socket gives all that was written before it says that its writer is gone;
    // TCP may not.
    if (unix) throw new ControlLost(`${ended.message}; its guest had not begun to run`, 1, { cause: ended });
    throw ended;
  }

  stop(): void {
    for (const stop of this.#stop) stop();
    this.#looks.clear();
  }

  #note(side: WhichSide, event: QmpEvent): void {
    const seen = this.#seen[side];
    if (event.type === 'stop') seen.stoppedAtMs = event.atMs;
    else if (event.type === 'resume') seen.resumedAtMs = event.atMs;
    else if (event.type === 'migration') seen.status = event.status;
  }
}

export interface WaitOptions {
  readonly signal?: AbortSignal | undefined;
  readonly timeoutMs?: number | undefined;
  /** For the error: "RESUME of the destination QEMU". */
  readonly what?: string | undefined;
}
