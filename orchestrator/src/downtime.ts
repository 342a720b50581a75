import type { VmmDriver, VmmInstant } from './drivers/driver.ts';
import type { MigrationResult } from './options.ts';

export type Downtime = Pick<MigrationResult, 'downtimeMs' | 'downtimeClock'>;

/** `oursMs`: from asking for the pause to hearing that the guest runs, as we saw it. */
export function downtimeOf(
  { sharedClock }: Pick<VmmDriver, 'sharedClock'>,
  paused: VmmInstant,
  resumed: VmmInstant,
  oursMs: number,
): Downtime {
  const theirsMs = (resumed.monotonicMs ?? Number.NaN) - (paused.monotonicMs ?? Number.NaN);
  // Outside of what we saw ourselves it cannot be: then the clocks are not one after all.
  const usable = sharedClock && theirsMs >= 0 && theirsMs <= oursMs;
  return usable
    ? { downtimeMs: theirsMs, downtimeClock: 'vmm' }
    : { downtimeMs: oursMs, downtimeClock: 'orchestrator' };
}
