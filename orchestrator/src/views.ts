/** The destination's views of one migration as they come, for whoever waits for a phase. */
import { ErrorReason, PagewakeError } from '@pagewake/agent-kit';
import { MigrationPhase as AgentPhase, type Migration } from '@pagewake/proto';
import { unlessAborted } from './abort.ts';
import type { EarlyHandOver } from './drivers/driver.ts';

/** The VMM's memory is with the agent. A source that is paused already is not waited for, so there may be no HELD. */
const HANDED_OVER: ReadonlySet<AgentPhase> = new Set([
  AgentPhase.HELD,
  AgentPhase.FILLING,
  AgentPhase.PAUSED,
  AgentPhase.FINISHING,
  AgentPhase.COMPLETED,
]);

export class Views {
  #latest: Migration | undefined;
  #look = (): void => undefined;

  note(view: Migration): void {
    this.#latest = view;
    this.#look();
  }

  /** Rejects with BAD_HANDSHAKE where no VMM came in time; `fails` ends the wait with its own error. */
  async untilHandedOver(
    handOver: EarlyHandOver,
    limits: { readonly timeoutMs: number; readonly signal: AbortSignal; readonly fails: Promise<never> },
  ): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#look = () => {
      if (this.#latest !== undefined && HANDED_OVER.has(this.#latest.phase)) resolve();
    };
    const late = setTimeout(() => reject(this.#lateness(handOver, limits.timeoutMs)), limits.timeoutMs);
    this.#look();
    try {
      await unlessAborted(limits.signal, Promise.race([promise, limits.fails]));
    } finally {
      clearTimeout(late);
      this.#look = () => undefined;
    }
  }

  #lateness(handOver: EarlyHandOver, timeoutMs: number): PagewakeError {
    const socket = this.#latest?.vmmSocket ?? '';
    const seconds = `${String(timeoutMs / 1000)} s`;
    if (this.#latest?.phase === AgentPhase.AWAITING_VMM) {
      const message = `no VMM has handed over its memory at ${socket} within ${seconds}: ${handOver.question(socket)}`;
      return new PagewakeError(ErrorReason.BAD_HANDSHAKE, message, { vmm_socket: socket });
    }
    const phase = AgentPhase[this.#latest?.phase ?? AgentPhase.UNSPECIFIED].toLowerCase();
    return new PagewakeError(
      ErrorReason.SOURCE_UNREACHABLE,
      `the destination agent does not hold the VMM's memory after ${seconds}: the migration is ${phase}; see its log and the source agent's`,
      { vmm_socket: socket },
    );
  }
}
