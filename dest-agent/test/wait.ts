/** Waiting for conditions, never for times: a hang fails by its name, a slow machine does not. */
import { setTimeout as sleep } from 'node:timers/promises';

export const BUDGET_MS = 20_000;
/** For every test of this room that waits for something. */
export const BUDGET = { timeout: 60_000 };

/** Resolves once `found` gives something other than undefined or false. */
export async function until<T>(what: string, found: () => T | Promise<T>): Promise<Exclude<T, undefined | false>> {
  const deadline = performance.now() + BUDGET_MS;
  for (;;) {
    const value = await found();
    if (value !== undefined && value !== false) return value as Exclude<T, undefined | false>;
    if (performance.now() > deadline) throw new Error(`not within ${String(BUDGET_MS / 1000)} s: ${what}`);
    await sleep(2);
  }
}

/** The promise, or an error that says what did not come; asked for only then. */
export async function within<T>(what: string | (() => string), promise: Promise<T>): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    const text = typeof what === 'string' ? what : what();
    reject(new Error(`not within ${String(BUDGET_MS / 1000)} s: ${text}`));
  }, BUDGET_MS);
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
