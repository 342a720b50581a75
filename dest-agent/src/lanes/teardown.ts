/** The two ends of a VM's time with the agent: every page is there, or some never will be. */
import { MAX_CLAIM_PAGES, type PageLedger } from '../adapters/ledger.ts';
import type { VmMemory } from '../adapters/memory.ts';

/** Gives the ranges back to the kernel. True where the VMM is gone already (then there is nothing to give back). */
export function unregisterAll(memory: VmMemory): boolean {
  let exited = false;
  for (const region of memory.layout.regions) {
    const outcome = memory.unregister(region);
    if (outcome.kind === 'exited') exited = true;
  }
  return exited;
}

/**
 * Poisons every page that has not come, so that a touch is a SIGBUS (EHWPOISON in a vCPU) and neither a zero nor a wait for ever. Pages that
 * are known to be zero stay as they are.
 * @returns how many pages were poisoned
 */
export function poisonMissing(memory: VmMemory, ledger: PageLedger): number {
  let poisoned = 0;
  for (const region of memory.layout.regions) {
    const end = region.firstLedgerPage + region.pageCount;
    ledger.release(region.firstLedgerPage, region.pageCount, new Uint32Array(region.pageCount));
    for (;;) {
      // Claimed for good: nobody may install over the poison.
      const run = ledger.claimRun(region.firstLedgerPage, end, MAX_CLAIM_PAGES);
      if (!run) break;
      const outcome = memory.poison({ region, firstPage: run.first - region.firstLedgerPage, pageCount: run.count });
      if (outcome.kind === 'exited') return poisoned;
      poisoned += run.count;
    }
  }
  return poisoned;
}
