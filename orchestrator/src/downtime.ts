import type { VmmDriver, VmmInstant } from './drivers/driver.ts';
import type { MigrationResult } from './options.ts';

export type Downtime = Pick<MigrationResult, 'downtimeMs' | 'downtimeClock'>;

/** `oursMs`: from hearing that the guest stops to hearing that it runs, as we saw it; `atMostMs`: from asking for that. */
export function downtimeOf(
  { sharedClock }: Pick<VmmDriver, 'sharedClock'>,
  paused: VmmInstant,
  resumed: VmmInstant,
  { oursMs, atMostMs }: { readonly oursMs: number; readonly atMostMs: number },
): Downtime {
  const theirsMs = (resumed.atMs ?? Number.NaN) - (paused.atMs ?? Number.NaN);
  // Outside of what we saw ourselves it cannot be: then the clocks are not one after all.
  const usable = sharedClock && theirsMs >= 0 && theirsMs <= atMostMs;
  return usable
    ? { downtimeMs: theirsMs, downtimeClock: 'vmm' }
    : { downtimeMs: oursMs, downtimeClock: 'orchestrator' };
}
