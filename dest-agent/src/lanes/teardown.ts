/** The two ends of a VM's time with the agent: every page is there, or some never will be. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Region } from '@pagewake/core';
import { PAGE, UFFD_EVENT_BATCH, UFFD_EVENT_FIELDS, type PageLedger } from '../adapters/ledger.ts';
import type { PlacedRun, VmMemory } from '../adapters/memory.ts';
import { slice } from './installer.ts';

export interface Unregistered {
  /** The VMM is gone already: there is nothing to give back. */
  readonly exited: boolean;
  /** What the kernel said where it would not, and of which region. */
  readonly refused: string | undefined;
}

/** Gives the ranges back to the kernel, which wakes everybody who waits there; vCPUs exit no more, first. Only once every page is there or known to be zero. */
export function unregisterAll(memory: VmMemory): Unregistered {
  memory.clearAllBits();
  // Memory that nothing traps was never registered.
  if (!memory.uffd) return { exited: false, refused: undefined };
  for (const region of memory.layout.regions) {
    const outcome = memory.unregister(region);
    if (outcome.kind === 'exited') return { exited: true, refused: undefined };
    if (outcome.kind !== 'done') {
      const why = outcome.kind === 'refused' ? outcome.errno : outcome.kind;
      return { exited: false, refused: `region ${region.index}: ${why}` };
    }
  }
  return { exited: false, refused: undefined };
}

export interface Poisoned {
  readonly pages: number;
  /** What the kernel said where it would not (EINVAL, ENOTTY: before Linux 6.6). A process that has exited is no refusal. */
  readonly refused: string | undefined;
}

/**
 * Poisons every page that is not there, so that a touch is a SIGBUS (EHWPOISON in a vCPU) and neither a zero nor a wait for ever. Pages that are known to
 * be zero are poisoned as well: nobody will be here to resolve them, and a guest that has lost other pages is not to go on.
 * A page that turns out to be there stays as it is. No lane may run any more.
 */
export async function poisonAbsent(memory: VmMemory, ledger: PageLedger): Promise<Poisoned> {
  let poisoned = 0;
  for (const region of memory.layout.regions) {
    let from = 0;
    while (from < region.pageCount) {
      const run = absentRun(region, from, ledger);
      if (!run) break;
      const result = await poisonRun(memory, run, () => drainAll(memory));
      poisoned += result.pages;
      if (result.end !== undefined)
        return { pages: poisoned, refused: result.end === 'exited' ? undefined : result.end };
      from = run.firstPage + run.pageCount;
    }
  }
  return { pages: poisoned, refused: undefined };
}

/** The first run at or after a page of the region that the ledger does not call present. */
function absentRun(region: Region, from: number, ledger: PageLedger): PlacedRun | undefined {
  const isThere = (page: number): boolean => ledger.state(region.firstLedgerPage + page) === PAGE.present;
  let first = from;
  while (first < region.pageCount && isThere(first)) first++;
  let end = first;
  while (end < region.pageCount && !isThere(end)) end++;
  return end > first ? { region, firstPage: first, pageCount: end - first } : undefined;
}

/** Lets whoever waits for an event to be read go on; what they do no longer matters. */
function drainAll(memory: VmMemory): void {
  const events = new Float64Array(UFFD_EVENT_BATCH * UFFD_EVENT_FIELDS);
  while ((memory.uffd?.drain(events) ?? 0) === UFFD_EVENT_BATCH);
}

interface RunPoisoned {
  readonly pages: number;
  /** Why it ended before the run did: the VMM has exited, or what the kernel said. */
  readonly end: string | undefined;
}

async function poisonRun(memory: VmMemory, run: PlacedRun, drainEvents: () => void): Promise<RunPoisoned> {
  let poisoned = 0;
  let from = 0;
  while (from < run.pageCount) {
    const outcome = memory.poison(slice(run, from, run.pageCount - from));
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
        return { pages: poisoned, end: outcome.kind };
      case 'refused':
        return { pages: poisoned, end: outcome.errno };
    }
  }
  return { pages: poisoned, end: undefined };
}
