/**
 * One migration over the death of its agent: what is written down before it is needed, and what the next agent makes of it. Only a VMM that hands the very
 * same memory over again goes on: in any other what the ledger calls present would be zeros.
 */
import { fstatSync, readlinkSync } from 'node:fs';
import { DIALECTS, GuestLayout, orderByName, type Region, type VmmOffer } from '@pagewake/core';
import { HandshakeError } from '@pagewake/core/messages';
import { PAGE, PageLedger } from '../adapters/ledger.ts';
import type { OfferedMemory } from '../adapters/offered-memory.ts';
import { ErrorReason, messageOf, PagewakeError, type Logger } from '../kit.ts';
import { beganAt, ProcessEnd } from './process-end.ts';
import { STAGE, type Ended, type HandedOver, type RecordKeeper } from './record.ts';
import type { ReceivedOffer } from './vmm-link.ts';
import { removedOrder, type RemovedOrder } from './vmm-orders.ts';

/** The ledger of a VM, and which of its pages may be in the memory although they are called missing. */
export interface Ledgered {
  readonly ledger: PageLedger;
  readonly inDoubt: readonly number[];
}

export interface ContinuityEvents {
  /** The VMM that the agent before this one had is gone. */
  onVmmGone(): void;
  /** The VM was whole, and its VMM does not come: it was told. */
  onNobody(): void;
}

/** A VMM that was not told that it is whole comes back sooner than this. */
const COMES_BACK_MS = 5000;

export class Continuity {
  readonly #keeper: RecordKeeper;
  readonly #log: Logger;
  /** The agent before this one had it. */
  readonly adopted: boolean;
  #ledger: PageLedger | undefined;
  #vmmEnd: ProcessEnd | undefined;
  #timer: NodeJS.Timeout | undefined;
  #ended = false;

  constructor(keeper: RecordKeeper, adopted: boolean, log: Logger) {
    this.#keeper = keeper;
    this.#log = log;
    this.adopted = adopted;
  }

  /** The VMM may come from now on. Whoever asked for this migration is told so next, so the next agent has to know of it. */
  begin(events: ContinuityEvents): void {
    const { memory } = this.#keeper.record;
    if (!this.adopted) this.#keeper.update({});
    if (!this.adopted || !memory) return;
    if (this.stage === STAGE.givenBack) {
      this.#timer = setTimeout(() => events.onNobody(), COMES_BACK_MS);
      return;
    }
    if (!DIALECTS[memory.dialect].comesAgain && this.goesOn)
      this.#log.error(
        { pid: memory.pid },
        'this VMM cannot hand its memory over a second time, so its guest waits for ever: end it',
      );
    if (memory.pid === 0 || memory.pidNamespace !== pidNamespace()) return;
    this.#vmmEnd = new ProcessEnd(
      memory.pid,
      () => events.onVmmGone(),
      () => undefined,
      memory.began,
    );
  }

  /** What a VMM offers, as it is to be looked at: what an agent has filled is not empty, and not to be thrown away. */
  seen(offer: VmmOffer): VmmOffer {
    return this.goesOn ? { ...offer, content: 'live' } : offer;
  }

  /** The memory that the agent before this one had, in the source's order. */
  get layout(): GuestLayout | undefined {
    const { memory, regionNames } = this.#keeper.record;
    return memory && orderByName(new GuestLayout(memory.regions), regionNames);
  }

  /** What the agent before this one ended the migration with, where it may not have come to tell everybody. */
  get givenUp(): PagewakeError | undefined {
    const { givenUp } = this.#keeper.record;
    return givenUp && new PagewakeError(givenUp.reason, givenUp.message);
  }

  /** As the orchestrator said last, to this agent or to one before it. */
  get prefetchPaused(): boolean {
    return this.#keeper.record.prefetchPaused === true;
  }

  keepPrefetch(wish: 'paused' | 'resumed'): void {
    this.#write(() => this.#keeper.update({ prefetchPaused: wish === 'paused' }));
  }

  /** How far the agent before this one came, by the ledger that it left. Undefined: no VMM had handed anything over. */
  get stage(): number | undefined {
    return this.adopted && this.#keeper.record.memory ? this.#left().stage : undefined;
  }

  /**
   * Looks at a VMM that offers its memory.
   * @throws HandshakeError where it is not the one whose memory was being filled; that one may still come
   */
  admit(received: ReceivedOffer): void {
    const { memory } = this.#keeper.record;
    // Its own migration is lost, and it does not give up: that must not cost this one its VMM.
    if (received.offer.content === 'live' && !this.goesOn)
      throw new HandshakeError(
        'a guest may run on this memory already (content: live), and this migration has not begun it: only the agent that continues its migration may take it',
      );
    const other = this.goesOn && memory ? whyAnother(memory, handedOver(received)) : undefined;
    if (other !== undefined)
      throw new HandshakeError(
        `this is not the memory that this migration was filling when its agent died (${other}); a VMM that was started anew cannot go on with it`,
      );
  }

  /** This memory, or some of it, has been filled by the agent before this one. */
  get goesOn(): boolean {
    return (this.stage ?? STAGE.held) !== STAGE.held;
  }

  /**
   * The VM's ledger: new, or as it was left and put right by what the memory holds. Written down with the memory, before anything can come into it.
   * @throws PagewakeError INTERNAL where that cannot be
   */
  ledgerFor(received: ReceivedOffer, layout: GuestLayout, memory: OfferedMemory): Ledgered {
    this.#stopWaiting();
    if (this.goesOn) return this.#recover(received.offer, layout, memory);
    this.#ledger?.close();
    try {
      this.#ledger = PageLedger.create(layout.pageCount, this.#keeper.ledgerPath);
      this.#keeper.update({ memory: handedOver(received) });
    } catch (error) {
      throw new PagewakeError(ErrorReason.INTERNAL, `cannot write to the state folder: ${messageOf(error)}`);
    }
    return { ledger: this.#ledger, inDoubt: [] };
  }

  /** It will not be: whoever takes this up after a crash has to tell. */
  giveUp(error: PagewakeError): void {
    this.#write(() => this.#keeper.update({ givenUp: { reason: error.reason, message: error.message } }));
  }

  /** Over, and told. The first word counts. */
  end(ended: Ended): void {
    this.#stopWaiting();
    if (this.#ended) return;
    this.#ended = true;
    this.#write(() => this.#keeper.end(ended));
  }

  /** This agent lets go of it; the next one may take it up. */
  stop(): void {
    this.#stopWaiting();
    this.#ledger?.close();
  }

  /** Nobody is helped by an error: what the record would tell the next agent holds of this one. */
  #write(act: () => void): void {
    try {
      act();
    } catch (error) {
      this.#log.error({ error: messageOf(error) }, 'the state folder cannot be written');
    }
  }

  #stopWaiting(): void {
    clearTimeout(this.#timer);
    this.#vmmEnd?.stop();
  }

  /** What the last agent knew of the pages. Where that is lost nobody can tell what is missing from what was given back: then the guest is ended. */
  #left(): PageLedger {
    if (this.#ledger) return this.#ledger;
    const path = this.#keeper.ledgerPath;
    const pages = (this.#keeper.record.memory?.regions ?? []).reduce(
      (sum, r) => sum + r.sizeBytes / r.pageSizeBytes,
      0,
    );
    try {
      const ledger = PageLedger.open(path);
      if (ledger.pageCount === pages) return (this.#ledger = ledger);
      ledger.close();
      throw new Error(`it knows of ${ledger.pageCount} pages, the VM has ${pages}`);
    } catch (error) {
      const why = new PagewakeError(
        ErrorReason.INTERNAL,
        `what the agent before this one knew of the pages is lost: ${messageOf(error)}`,
      );
      this.#log.error(
        { error: messageOf(error) },
        'what the agent before this one knew of the pages is lost; its guest cannot go on',
      );
      const ledger = PageLedger.create(pages, path);
      ledger.stage = STAGE.live;
      this.giveUp(why);
      return (this.#ledger = ledger);
    }
  }

  /**
   * What was asked for as an agent died may be there. Written down before the ledger forgets that it was asked for: the next agent may die before it
   * has been found out.
   */
  #doubtful(ledger: PageLedger, regions: readonly Region[]): readonly number[] {
    const doubtful = new Set(this.#keeper.record.inDoubt);
    for (const { firstLedgerPage: first, pageCount } of regions)
      for (let page = first; page < first + pageCount; page++)
        if (ledger.state(page) === PAGE.requested) doubtful.add(page);
    const inDoubt = [...doubtful].filter((page) => ledger.state(page) !== PAGE.present);
    this.#keeper.update({ inDoubt });
    return inDoubt;
  }

  #recover(offer: VmmOffer, layout: GuestLayout, memory: OfferedMemory): Ledgered {
    const ledger = this.#left();
    const before = ledger.counts();
    const heldIn = layout.regions.map((region) => memory.heldPages(region));
    const inDoubt = this.#doubtful(
      ledger,
      layout.regions.filter((_, index) => heldIn[index] === undefined),
    );
    for (const region of layout.regions) {
      const { firstLedgerPage: first, pageCount } = region;
      const held = heldIn[region.index];
      let next = 0;
      for (const run of held ?? []) {
        ledger.recover(first + next, run.firstPage - next, 'absent');
        ledger.recover(first + run.firstPage, run.pageCount, 'held');
        next = run.firstPage + run.pageCount;
      }
      ledger.recover(first + next, pageCount - next, held ? 'absent' : 'unknown');
    }
    for (const range of offer.givenBack) noteGivenBack(ledger, removedOrder(range, { offered: offer.layout, layout }));
    this.#log.info(
      { before, after: ledger.counts(), inDoubt: inDoubt.length },
      'goes on where the agent before this one stopped',
    );
    if (ledger.diedReading && offer.givenBack.length === 0)
      this.#log.warn(
        'the agent before this one died while it read what the guest gives back: such a range may come back with its old content',
      );
    return { ledger, inDoubt };
  }
}

/** Where the page is not there. Where it is, the kernel has the event still. */
function noteGivenBack(ledger: PageLedger, order: RemovedOrder | undefined): void {
  if (!order) return;
  const none = new Uint32Array(1);
  for (let page = order.first; page < order.first + order.count; page++)
    if (ledger.state(page) !== PAGE.present) ledger.remove(page, 1, none);
}

function handedOver({ offer, descriptors, pid }: ReceivedOffer): HandedOver {
  return {
    dialect: offer.dialect,
    pid,
    began: beganAt(pid) ?? '',
    pidNamespace: pidNamespace(),
    files: descriptors.filter((_, index) => offer.descriptors[index] !== 'uffd').map((fd) => identityOf(fd)),
    regions: offer.layout.regions.map(
      ({ address, sizeBytes, offset, pageSizeBytes, file, fileOffset, gpaStart, name }) => ({
        address,
        sizeBytes,
        offset,
        pageSizeBytes,
        file,
        fileOffset,
        gpaStart,
        name,
      }),
    ),
  };
}

function identityOf(fd: number): string {
  const { dev, ino } = fstatSync(fd, { bigint: true });
  return `${dev}:${ino}`;
}

const pidNamespace = (): string => readlinkSync('/proc/self/ns/pid');

/** What tells that this memory is not that one; undefined where nothing does. */
function whyAnother(was: HandedOver, is: HandedOver): string | undefined {
  const sameNamespace = was.pidNamespace === is.pidNamespace;
  if (sameNamespace && (was.pid !== is.pid || was.began !== is.began))
    return `process ${is.pid} is not process ${was.pid} of then`;
  const visible = sameNamespace && was.pid !== 0;
  if (!visible && was.files.length === 0)
    return 'nothing tells whose memory it is, without its process and without a file';
  if (was.files.join() !== is.files.join()) return 'its memory files are others';
  if (JSON.stringify(was.regions) !== JSON.stringify(is.regions)) return 'its regions are others';
  return undefined;
}
