/** A migration's phase: moves only as the table allows, and tells whoever listens. */
import { EventEmitter } from 'node:events';
import { advance, isFinal, mayFollow, type Phase } from '@pagewake/core';
import { ErrorReason, PagewakeError } from '../kit.ts';

interface Events {
  /** The phase has changed. */
  change: [];
}

export class PhaseMachine extends EventEmitter<Events> {
  #phase: Phase;

  constructor(phase: Phase = 'preparing') {
    super();
    this.#phase = phase;
    // One listener a watcher, and there may be many.
    this.setMaxListeners(0);
  }

  get phase(): Phase {
    return this.#phase;
  }

  get over(): boolean {
    return isFinal(this.#phase);
  }

  may(next: Phase): boolean {
    return mayFollow(this.#phase, next);
  }

  protected enter(phase: Phase): void {
    if (phase === this.#phase) return;
    this.#phase = advance(this.#phase, phase);
    this.emit('change');
  }

  /** Rejects once the phase is final. For a race: that nobody waits any more is no error. */
  protected untilOver(why: () => Error): Promise<never> {
    const over = new Promise<never>((_resolve, reject) => {
      this.on('change', () => {
        if (this.over) reject(why());
      });
    });
    over.catch(() => undefined);
    return over;
  }

  protected wrongPhase(wish: string): PagewakeError {
    const message = `a migration that is ${this.#phase} cannot be ${wish}`;
    return new PagewakeError(ErrorReason.WRONG_PHASE, message, { phase: this.#phase });
  }
}
