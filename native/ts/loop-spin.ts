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
  readonly #native: NativeLoopSpin;
  readonly #forUs: number;

  /** @param forUs how long from a touch on, microseconds; 0: never */
  constructor(forUs: number) {
    this.#forUs = forUs;
    this.#native = new binding.LoopSpin(forUs);
  }

  /** Something came: something else may be right behind it. */
  touch(): void {
    if (this.#forUs > 0) this.#native.touch();
  }

  stop(): void {
    this.#native.stop();
  }

  get state(): SpinState {
    return STATES[this.#native.state()] ?? 'asleep';
  }

  /** Idempotent. */
  close(): void {
    this.#native.close();
  }
}
