import { binding } from './binding.ts';
import type { NativeLoopSpin } from './binding.ts';

/** `resting`: it was put aside for too long while it was awake, and is as `asleep` for ten times as long. */
export type SpinState = 'asleep' | 'awake' | 'resting';

const STATES: readonly SpinState[] = ['asleep', 'awake', 'resting'];

/**
 * Keeps the event loop of this thread awake for a moment after something came: the next message is then read at once and not after the kernel has
 * woken a thread. Bounded; yields its core to whoever else can run there, and rests where it does not get it back soon.
 */
export class LoopSpin {
  readonly #one: NativeLoopSpin | undefined;
  readonly #several: NativeLoopSpin | undefined;

  /**
   * @param forUs how long from a touch on, microseconds; 0: never
   * @param amongSeveralUs the same of a touch that is one of several; the longer of the two counts
   */
  constructor(forUs: number, amongSeveralUs = 0) {
    this.#one = forUs > 0 ? new binding.LoopSpin(forUs) : undefined;
    this.#several = amongSeveralUs > forUs ? new binding.LoopSpin(amongSeveralUs) : undefined;
  }

  /**
   * Something came: something else may be right behind it.
   * @param several what came is one of several that are under way at once
   */
  touch(several = false): void {
    this.#one?.touch();
    if (several) this.#several?.touch();
  }

  stop(): void {
    this.#one?.stop();
    this.#several?.stop();
  }

  get state(): SpinState {
    const states = [this.#one, this.#several].map((native) => STATES[native?.state() ?? 0]);
    return states.find((state) => state === 'awake') ?? states.find((state) => state === 'resting') ?? 'asleep';
  }

  /** Idempotent. */
  close(): void {
    this.#one?.close();
    this.#several?.close();
  }
}
