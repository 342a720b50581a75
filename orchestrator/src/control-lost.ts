/** What the end of a VMM's control connection in the switchover means. */
import { ErrorReason } from '@pagewake/agent-kit';
import { MigrationPhase, type Migration } from '@pagewake/proto';
import { ControlLost, GuestNeverRan } from './drivers/driver.ts';

/** The agent hears of the VMM's end by its channel and by its process: within milliseconds. */
const AGENT_NOTICES_MS = 5_000;

/**
 * Rejects: with GuestNeverRan where `thrown` is a ControlLost and the agent says that the VMM has exited, else with `thrown`.
 * @param last settles with the migration's last view
 */
async function unlessVmmExited(thrown: unknown, last: Promise<Migration> | undefined): Promise<never> {
  if (!(thrown instanceof ControlLost) || last === undefined) throw thrown;
  const late = Promise.withResolvers<undefined>();
  const timer = setTimeout(() => late.resolve(undefined), AGENT_NOTICES_MS);
  const view = await Promise.race([last.catch(() => undefined), late.promise]).finally(() => clearTimeout(timer));
  if (view?.phase === MigrationPhase.FAILED && view.error?.reason === ErrorReason.VMM_EXITED)
    throw new GuestNeverRan(thrown.message, 1, { cause: thrown });
  throw thrown;
}

export interface Fate {
  readonly signal: AbortSignal;
  /** Settles with the migration's last view. */
  readonly last: Promise<Migration> | undefined;
  /** Rejects where the migration fails on the destination. */
  readonly fails: Promise<never>;
}

/** Ends `work` where the migration fails on the destination, with that error. Once this settles `work` has: nothing is taken back beside it. */
export async function unlessItFails<T>(work: (signal: AbortSignal) => Promise<T>, fate: Fate): Promise<T> {
  const orFailed = new AbortController();
  const judged = work(AbortSignal.any([fate.signal, orFailed.signal])).catch((error: unknown) =>
    unlessVmmExited(error, fate.last),
  );
  try {
    return await Promise.race([judged, fate.fails]);
  } catch (error) {
    orFailed.abort();
    // What the driver saw says more than the agent's word that the VMM is gone.
    throw await judged.then(
      () => error,
      (better: unknown) => (better instanceof GuestNeverRan ? better : error),
    );
  }
}
