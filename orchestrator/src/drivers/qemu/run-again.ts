/** Back to a guest that runs on the source, from wherever a migration of it had come to. */
import { setTimeout as delay } from 'node:timers/promises';
import { UserError } from '@pagewake/agent-kit';
import { z } from 'zod';
import type { QmpClient } from '../../qmp/client.ts';
import { QmpRefused } from '../../qmp/errors.ts';
import { migrationOf, statusOf } from './inspect.ts';

/** An unwinding waits for it, and so does the guest. */
const BUDGET_MS = 5_000;
const LOOK_EVERY_MS = 10;
const UNDER_WAY = new Set(['setup', 'active', 'pre-switchover', 'device', 'wait-unplug', 'cancelling']);

/** Resolves once QEMU says that the guest runs. */
export async function runAgain(source: QmpClient): Promise<void> {
  const untilMs = performance.now() + BUDGET_MS;
  let migration = await migrationOf(source);
  if (UNDER_WAY.has(migration ?? '')) await source.execute('migrate_cancel');
  // A source that is cancelled or fails runs its guest again by itself, but not in the same moment.
  while (UNDER_WAY.has(migration ?? '') && performance.now() < untilMs) {
    await delay(LOOK_EVERY_MS);
    migration = await migrationOf(source);
  }
  if ((await statusOf(source)) !== 'running') await source.execute('cont');
  const status = await statusOf(source);
  if (status !== 'running') throw new UserError(`${source.who} does not run its guest again: it is ${status}`);
}

export async function quit(source: QmpClient): Promise<void> {
  await source.execute('quit').catch((error: unknown) => {
    // Anything but a refusal is QEMU on its way out.
    if (error instanceof QmpRefused) throw error;
  });
}

/** Why the source's migration ended, in QEMU's words. */
export async function errorOfMigration(source: QmpClient): Promise<UserError> {
  const schema = z.object({ status: z.string().optional(), 'error-desc': z.string().optional() });
  const { status, 'error-desc': why } = await source.execute('query-migrate', {}, schema);
  return new UserError(`${source.who}: its migration is ${status ?? 'over'}${why === undefined ? '' : `: ${why}`}`);
}
