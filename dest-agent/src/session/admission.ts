/** From what a VMM handed over to memory that may be filled, or the typed reason why not. */
import { closeSync } from 'node:fs';
import { chooseTier, orderByName, RegionNameError, type GuestLayout, type Mode, type TierChoice } from '@pagewake/core';
import type { PageLedger } from '../adapters/ledger.ts';
import { VmMemory } from '../adapters/memory.ts';
import { filesAreWritable, OfferedMemory } from '../adapters/offered-memory.ts';
import { ErrorReason, PagewakeError } from '../kit.ts';
import type { AttachedMemory } from '../lanes/messages.ts';
import { poisonAbsent, unregisterAll, type Poisoned, type Unregistered } from '../lanes/teardown.ts';
import type { Continuity } from './continuity.ts';
import type { LaneDescriptors } from './lanes.ts';
import type { LedgerTotals } from './snapshot.ts';
import type { ReceivedOffer } from './vmm-link.ts';

export type Choice = Extract<TierChoice, { kind: 'chosen' }>;

/** What a migration expects of the VMM that comes. */
export interface Wanted {
  readonly vmId: string;
  readonly wantedMode: Mode | undefined;
  /** The source's regions in their order, by the names that this VMM gives them; none: in the VMM's order. */
  readonly regionNames: readonly string[];
  readonly continuity: Continuity;
}

/** One VM's memory and its ledger, from the handshake to the end of the migration. */
export class AdmittedVm {
  readonly received: ReceivedOffer;
  /** Its regions in its own order. */
  readonly offered: GuestLayout;
  readonly choice: Choice;
  readonly ledger: PageLedger;
  readonly #memory: OfferedMemory;
  /** Pages that may be there although the ledger calls them missing. */
  readonly #inDoubt: readonly number[];
  zeroAtOpen = 0;
  #closed: LedgerTotals | undefined;

  /**
   * Owns the descriptors of the offer from here on, also where it throws.
   * @throws PagewakeError BAD_HANDSHAKE, NOT_TRAPPABLE, MISSING_CAPABILITY
   */
  constructor(received: ReceivedOffer, wanted: Wanted) {
    this.offered = received.offer.layout;
    try {
      this.choice = choose(received, wanted);
      this.received = inOurOrder(received, wanted.regionNames);
    } catch (error) {
      for (const fd of received.descriptors) closeSync(fd);
      throw error;
    }
    // Only now: what another VM has in its memory is not to be thrown away.
    const { continuity } = wanted;
    this.#memory = new OfferedMemory(continuity.seen(this.received.offer), received.descriptors);
    try {
      const { ledger, inDoubt } = continuity.ledgerFor(received, this.layout, this.#memory);
      this.ledger = ledger;
      this.#inDoubt = inDoubt;
    } catch (error) {
      this.#memory.close();
      throw error;
    }
  }

  /** Thrown away before anything came: what a VMM that nobody has run on had in its files. */
  get discardedBytes(): number {
    return this.#memory.discardedBytes;
  }

  /** Its regions in the source's order. */
  get layout(): GuestLayout {
    return this.received.offer.layout;
  }

  /** What the lanes need, but for descriptors: each lane gets copies of its own. */
  get attachment(): Omit<AttachedMemory, 'uffd' | 'files' | 'bitmap'> {
    return {
      regions: this.layout.regions.map(({ address, sizeBytes, offset, pageSizeBytes, file, fileOffset }) => ({
        address,
        sizeBytes,
        offset,
        pageSizeBytes,
        file,
        fileOffset,
      })),
      traits: this.#memory.traits,
      trapped: this.choice.trapped,
      removeEvents: this.#memory.removeEvents,
      pid: this.received.pid > 0 ? this.received.pid : undefined,
      ledgerId: this.ledger.id,
      inDoubt: this.#inDoubt,
    };
  }

  /** Threads whose faults are stage-2 faults. None where events do not say whose they are. */
  get vcpuThreads(): readonly number[] {
    return this.#memory.threadIds ? this.received.offer.vcpuThreads : [];
  }

  duplicateDescriptors(): LaneDescriptors {
    return this.#memory.duplicate();
  }

  noteZero(first: number, count: number): void {
    this.zeroAtOpen += this.ledger.setZero(first, count);
  }

  /** Once closed, what was last so. */
  totals(): LedgerTotals {
    if (this.#closed) return this.#closed;
    const counts = this.ledger.counts();
    return {
      total: this.layout.pageCount,
      unresolved: counts.missing + counts.requested,
      zeroAtOpen: this.zeroAtOpen,
      removed: counts.removed,
    };
  }

  /** Wakes whoever waits anywhere: they fault anew. */
  wakeAll(): void {
    this.#withMemory((memory) => {
      for (const region of memory.layout.regions) memory.wake({ region, firstPage: 0, pageCount: region.pageCount });
    });
  }

  /** Where no lane does it. */
  unregister(): Unregistered {
    return this.#withMemory((memory) => unregisterAll(memory));
  }

  /** Poisons what has not come. Only once no lane runs any more. */
  async poison(): Promise<Poisoned> {
    const memory = this.#ownMemory();
    try {
      return await poisonAbsent(memory, this.ledger);
    } finally {
      memory.close();
    }
  }

  #withMemory<T>(act: (memory: VmMemory) => T): T {
    const memory = this.#ownMemory();
    try {
      return act(memory);
    } finally {
      memory.close();
    }
  }

  #ownMemory(): VmMemory {
    return new VmMemory(this.attachment.regions, { ...this.#memory.duplicate(), pid: undefined });
  }

  close(): void {
    this.#closed ??= this.totals();
    this.#memory.close();
    this.ledger.close();
  }
}

function inOurOrder(received: ReceivedOffer, names: readonly string[]): ReceivedOffer {
  try {
    const layout = orderByName(received.offer.layout, names);
    return { ...received, offer: { ...received.offer, layout } };
  } catch (error) {
    if (error instanceof RegionNameError) throw new PagewakeError(ErrorReason.BAD_HANDSHAKE, error.message);
    throw error;
  }
}

function choose({ offer, descriptors }: ReceivedOffer, { vmId, wantedMode, continuity }: Wanted): Choice {
  if (offer.content === 'live' && !continuity.goesOn)
    throw new PagewakeError(
      ErrorReason.BAD_HANDSHAKE,
      'a guest may run on this memory already (content: live), and this migration has not begun it: only the agent that continues its migration may take it',
    );
  if (offer.vmId !== undefined && offer.vmId !== vmId)
    throw new PagewakeError(ErrorReason.BAD_HANDSHAKE, `the VMM says it is ${offer.vmId}; this socket is for ${vmId}`);
  const choice = chooseTier(offer, wantedMode, { writable: filesAreWritable(offer, descriptors) });
  if (choice.kind === 'not-trappable')
    throw new PagewakeError(ErrorReason.NOT_TRAPPABLE, choice.message, { missing: choice.missing.join('; ') });
  if (choice.kind === 'unsupported') throw new PagewakeError(ErrorReason.MISSING_CAPABILITY, choice.message);
  return choice;
}
