/** Exit codes, and errors as one line that says what and what to do. */
import { PagewakeError, UserError } from '@pagewake/agent-kit';
import { MigrationError, withReason } from '../errors.ts';
import type { FailedPhase } from '../phase.ts';

export const EXIT = {
  done: 0,
  failed: 1,
  usage: 2,
  sourceRuns: 3,
  guestLost: 4,
  interrupted: 130,
  unread: 141,
} as const;

export const EXIT_HELP = `Exit codes:
  0    done
  1    failed (migrate: nothing was touched, or it is not known, or not good, where the guest is; the message says which)
  2    wrong usage
  3    the migration had begun and failed, and the guest runs on on the source: it was seen to, or resumed
  4    the guest is lost on the destination; the source stays paused
  130  interrupted (migrate: taken back before the guest has moved, else it goes on by itself; watch: the migration goes on)
  141  nobody reads the output any more (not migrate: it goes on to its end)`;

const OF_OUTCOME: Readonly<Record<FailedPhase, number>> = {
  'failed-untouched': EXIT.failed,
  'failed-source-runs': EXIT.sourceRuns,
  'failed-source-paused': EXIT.failed,
  'failed-guest-lost': EXIT.guestLost,
  'failed-unknown': EXIT.failed,
  detached: EXIT.interrupted,
};

/** `interrupted`: a signal asked for the end. */
export function exitCodeOf(error: unknown, interrupted: boolean): number {
  if (error instanceof MigrationError) {
    const usage = error.cause instanceof UserError && error.cause.exitCode === EXIT.usage;
    if (usage) return EXIT.usage;
    const tookBack = error.outcome === 'failed-source-runs' || error.outcome === 'failed-untouched';
    return interrupted && tookBack ? EXIT.interrupted : OF_OUTCOME[error.outcome];
  }
  if (interrupted) return EXIT.interrupted;
  return error instanceof UserError ? error.exitCode : EXIT.failed;
}

export function errorLine(program: string, error: unknown): string {
  const advice = error instanceof MigrationError ? `; ${error.advice}` : '';
  // An agent's or a library's message may have line breaks of its own.
  return `${program}: ${withReason(error)}${advice}`.replaceAll(/\s*\n\s*/g, ' ');
}

/** For `--json`: the same on standard output. */
export function errorObject(error: unknown): Record<string, unknown> {
  const typed = error instanceof PagewakeError || error instanceof MigrationError;
  return {
    message: error instanceof Error ? error.message : String(error),
    reason: typed ? error.reasonName : null,
    ...(error instanceof MigrationError ? { outcome: error.outcome, advice: error.advice } : {}),
  };
}
