/** Follows one migration on its destination until it ends, through lost links and restarts of the stream. */
import { setTimeout as delay } from 'node:timers/promises';
import { ErrorReason, fromServiceError, isUnreachable, PagewakeError } from '@pagewake/agent-kit';
import { MigrationPhase, type Migration } from '@pagewake/proto';
import type { DestinationAgent } from './agents.ts';
import { cancelledByCaller } from './errors.ts';

export interface WatchOptions {
  /** How often at least a view comes; the agent takes 50 and more. */
  readonly intervalMs: number;
  /** How long the agent may be silent before the watch gives up. */
  readonly lossBudgetMs: number;
  /** An agent that has said nothing yet and cannot be connected to ends the watch at once. Default: it is tried again like any loss. */
  readonly refusalEnds?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onView: (migration: Migration) => void;
  /** The agent does not answer; trying again. Once a loss. */
  readonly onLost: (error: PagewakeError) => void;
}

const RETRY_MS = 500;

export const isFinalView = (migration: Migration): boolean =>
  migration.phase === MigrationPhase.COMPLETED ||
  migration.phase === MigrationPhase.FAILED ||
  migration.phase === MigrationPhase.CANCELLED;

/** The error in a view that has failed. */
export function errorOf(migration: Migration): PagewakeError {
  const { error } = migration;
  if (error !== undefined) return new PagewakeError(error.reason, error.message, error.metadata);
  const word = migration.phase === MigrationPhase.CANCELLED ? 'was cancelled' : 'failed';
  return new PagewakeError(ErrorReason.CANCELLED, `migration ${migration.migrationId} ${word}`);
}

/**
 * Resolves with the final view, whichever it is. Rejects with what the agent answered (UNKNOWN_MIGRATION after a restart), with
 * the loss once the agent was silent for `lossBudgetMs`, or with CANCELLED.
 */
export async function watchMigration(
  agent: DestinationAgent,
  migrationId: string,
  options: WatchOptions,
): Promise<Migration> {
  const { signal, intervalMs, lossBudgetMs, onView, onLost } = options;
  let heardAtMs = performance.now();
  let lost = false;
  let heard = false;
  for (;;) {
    // A connection may stand with nobody behind it: a view is due at least every `intervalMs`.
    const silence = new AbortController();
    const wait = (): NodeJS.Timeout =>
      setTimeout(() => silence.abort(), Math.max(0, heardAtMs + lossBudgetMs - performance.now()));
    let timer = wait();
    let failure: unknown = new PagewakeError(ErrorReason.UNSPECIFIED, 'the stream ended early');
    try {
      const stream = agent.client.watch(
        { migrationId, intervalMs },
        { signal: signal === undefined ? silence.signal : AbortSignal.any([signal, silence.signal]) },
      );
      for await (const message of stream as AsyncIterable<{ readonly migration?: Migration }>) {
        if (message.migration === undefined) continue;
        heardAtMs = performance.now();
        lost = false;
        heard = true;
        clearTimeout(timer);
        timer = wait();
        onView(message.migration);
        if (isFinalView(message.migration)) return message.migration;
      }
    } catch (error) {
      if (isAnswer(fromServiceError(error))) throw agent.explain(error, signal);
      failure = error;
    } finally {
      clearTimeout(timer);
    }
    if (silence.signal.aborted && signal?.aborted !== true) throw agent.silentFor(lossBudgetMs);
    const explained = agent.explain(failure, signal);
    const refused = !heard && options.refusalEnds === true && isUnreachable(explained);
    if (signal?.aborted === true || refused || performance.now() - heardAtMs > lossBudgetMs) throw explained;
    if (!lost) onLost(explained);
    lost = true;
    await delay(RETRY_MS, undefined, signal === undefined ? {} : { signal }).catch(() => {
      throw cancelledByCaller();
    });
  }
}

/** The agent itself said so. What only the link says (also CANCELLED: an agent that is shutting down resets its streams) may pass. */
function isAnswer(error: PagewakeError): boolean {
  return error.reason !== ErrorReason.UNSPECIFIED && error.reason !== ErrorReason.CANCELLED;
}
