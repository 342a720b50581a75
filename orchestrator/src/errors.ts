/** How a migration ends that does not end well: one class, told apart by `outcome`. */
import { ErrorReason, messageOf, PagewakeError, reasonName } from '@pagewake/agent-kit';
import type { FailedPhase } from './phase.ts';

export class MigrationError extends Error {
  override readonly name = 'MigrationError';
  /** Where the guest is now. */
  readonly outcome: FailedPhase;
  /** UNSPECIFIED where no agent and no VMM gave one. */
  readonly reason: ErrorReason;
  /** What to do now, in one sentence. */
  readonly advice: string;

  constructor(outcome: FailedPhase, cause: unknown, advice: string) {
    super(messageOf(cause), { cause });
    this.outcome = outcome;
    this.reason = cause instanceof PagewakeError ? cause.reason : ErrorReason.UNSPECIFIED;
    this.advice = advice;
  }

  get reasonName(): string {
    return reasonName(this.reason);
  }
}

/** The caller's AbortSignal, as an error that says so. */
export function cancelledByCaller(): PagewakeError {
  return new PagewakeError(ErrorReason.CANCELLED, 'told to stop');
}

/** "REASON: message", or the message alone where nobody gave a reason. */
export function withReason(error: unknown): string {
  const typed = error instanceof PagewakeError || error instanceof MigrationError;
  return typed && error.reason !== ErrorReason.UNSPECIFIED ? `${error.reasonName}: ${error.message}` : messageOf(error);
}
