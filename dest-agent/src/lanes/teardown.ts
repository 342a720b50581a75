/** The two ends of a VM's time with the agent: every page is there, or some never will be. */
import { setTimeout as sleep } from 'node:timers/promises';
import { MAX_CLAIM_PAGES, type PageLedger } from '../adapters/ledger.ts';
import type { PlacedRun, VmMemory } from '../adapters/memory.ts';
import { slice } from './installer.ts';

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
 * are known to be zero stay as they are, and so does a page that turns out to be there.
 * @param drainEvents reads and handles what the userfaultfd has: while a range is being given back the kernel refuses to poison
 * @returns how many pages were poisoned
 */
export async function poisonMissing(memory: VmMemory, ledger: PageLedger, drainEvents: () => void): Promise<number> {
  let poisoned = 0;
  for (const region of memory.layout.regions) {
    const end = region.firstLedgerPage + region.pageCount;
    ledger.release(region.firstLedgerPage, region.pageCount, new Uint32Array(region.pageCount));
    for (;;) {
      // Claimed for good: nobody may install over the poison.
      const run = ledger.claimRun(region.firstLedgerPage, end, MAX_CLAIM_PAGES);
      if (!run) break;
      const placed = { region, firstPage: run.first - region.firstLedgerPage, pageCount: run.count };
      const pages = await poisonRun(memory, placed, drainEvents);
      if (pages === undefined) return poisoned;
      poisoned += pages;
    }
  }
  return poisoned;
}

/** @returns how many pages were poisoned; undefined where the VMM is gone or will have none of it */
async function poisonRun(memory: VmMemory, run: PlacedRun, drainEvents: () => void): Promise<number | undefined> {
  let poisoned = 0;
  let from = 0;
  while (from < run.pageCount) {
    const rest = slice(run, from, run.pageCount - from);
    const outcome = memory.poison(rest);
    const pages = Math.floor(outcome.bytes / run.region.pageSizeBytes);
    poisoned += pages;
    from += pages;
    switch (outcome.kind) {
      case 'done':
        break;
      case 'present':
      case 'unmapped':
        from += 1;
        break;
      case 'again':
      case 'no-memory':
        if (pages > 0) break;
        drainEvents();
        // The remover is woken by that reading, but the range stays locked until it has run.
        await sleep(1);
        break;
      case 'exited':
      case 'absent':
      case 'refused':
        return undefined;
    }
  }
  return poisoned;
}
