/** Waiting for something or for the caller to say stop, whichever comes first. */
import { cancelledByCaller } from './errors.ts';

/** Throws CANCELLED if the signal is aborted. */
export function refuseIfAborted(signal: AbortSignal): void {
  if (signal.aborted) throw cancelledByCaller();
}

/** Rejects with CANCELLED once the signal is aborted; `work` itself goes on. */
export async function unlessAborted<T>(signal: AbortSignal, work: Promise<T>): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(cancelledByCaller());
  if (signal.aborted) onAbort();
  else signal.addEventListener('abort', onAbort, { once: true });
  try {
    // Raced also where it is too late already, so that a rejection of `work` is always somebody's.
    return await Promise.race([work, promise]);
  } finally {
    // A signal usually outlives many waits.
    signal.removeEventListener('abort', onAbort);
  }
}
