/**
 * The neighbours of faults: runs of missing pages around them that the fault lane claims and asks for right behind the page that is waited for, and
 * installs in as few calls as the kernel allows. A fault on a page that is on its way so waits for its frame.
 */
import { callForPrefetch, FaultWindow, type InstallCall, type MemoryTraits, type PagePlace } from '@pagewake/core';
import { decodeFrame, Unpacked } from '../adapters/frames.ts';
import type { PageLedger } from '../adapters/ledger.ts';
import type { PlacedRun, VmMemory } from '../adapters/memory.ts';
import type { FaultOnWire, FaultsReply } from '../adapters/page-source.ts';
import { ErrorReason } from '../kit.ts';
import type { Counters, FaultCounter } from './counters.ts';
import { NO_BYTES, PageInstaller, slice } from './installer.ts';
import type { LaneError } from './messages.ts';
import type { RetryQueue } from './retry-queue.ts';

/** A window that faults and prefetch have been through is in pieces: more of them than this are not worth a request each. */
const MAX_RUNS_A_WINDOW = 4;
/** After so many refused frames in a row the source is not believed any more. */
const MAX_REFUSALS = 3;

export interface NeighboursOptions {
  readonly memory: VmMemory;
  readonly ledger: PageLedger;
  readonly traits: MemoryTraits;
  readonly windowPages: number;
  readonly counters: Counters<FaultCounter>;
  readonly retries: RetryQueue;
  nextId(): number;
  /** These pages came, and had waiters, who were woken. */
  woken(call: InstallCall, pages: Uint32Array): void;
  /** These pages were given back uninstalled, and have waiters. */
  orphans(pages: Uint32Array): void;
  vmmExited(): void;
  alarm(message: string): void;
  fatal(error: LaneError): void;
}

/** A run on its way: `next` is the first page that has not come yet. */
interface RunInFlight {
  readonly run: PlacedRun;
  next: number;
}

export class Neighbours {
  readonly #o: NeighboursOptions;
  readonly #installer: PageInstaller;
  readonly #window: FaultWindow;
  readonly #runs = new Map<number, RunInFlight>();
  readonly #scratch: Uint32Array;
  readonly #unpacked = new Unpacked();
  /** What is on its way goes before the page of the next fault. */
  #pagesInFlight = 0;
  #refusals = 0;

  constructor(options: NeighboursOptions) {
    this.#o = options;
    this.#installer = new PageInstaller(options.memory, options.ledger, options.traits.minor);
    // A page of 2 MiB has its neighbours in it.
    this.#window = new FaultWindow(options.traits.huge ? 1 : options.windowPages);
    this.#scratch = new Uint32Array(Math.max(1, options.windowPages));
  }

  /** Claims what is missing around a fault, and puts the requests for it behind those that are in `batch`. */
  askAround(place: PagePlace, batch: FaultOnWire[]): void {
    if (this.#o.windowPages <= 1) return;
    const { region } = place;
    const first = region.firstLedgerPage;
    this.#window.around(first + place.page, first, first + region.pageCount);
    let { from } = this.#window;
    const { end } = this.#window;
    for (let runs = 0; runs < MAX_RUNS_A_WINDOW; runs++) {
      const room = this.#o.windowPages - this.#pagesInFlight;
      if (from >= end || room <= 0) return;
      const claim = this.#o.ledger.claimRun(from, end, room);
      if (!claim) return;
      from = claim.first + claim.count;
      const run: PlacedRun = { region, firstPage: claim.first - first, pageCount: claim.count };
      const faultId = this.#o.nextId();
      this.#runs.set(faultId, { run, next: 0 });
      this.#pagesInFlight += claim.count;
      batch.push({ faultId, region: region.index, page: run.firstPage, pageCount: claim.count });
    }
  }

  /** An answer to no request of ours is passed over. What has to be asked for again is put behind the requests in `batch`. */
  onResponse(reply: FaultsReply, batch: FaultOnWire[]): void {
    const inFlight = this.#runs.get(reply.faultId);
    if (!inFlight) return;
    const rest = slice(inFlight.run, inFlight.next, inFlight.run.pageCount - inFlight.next);
    const { region, firstPage, pageCount } = rest;
    const expected = { region: region.index, firstPage, pageCount };
    const frame = decodeFrame(reply.frame, expected, region.pageSizeBytes, this.#unpacked);
    if (frame.kind === 'bad') {
      this.#refuse(reply.faultId, inFlight, { reason: frame.reason, message: frame.message, metadata: {} }, batch);
      return;
    }
    this.#refusals = 0;
    inFlight.next += frame.pageCount;
    this.#pagesInFlight -= frame.pageCount;
    if (inFlight.next === inFlight.run.pageCount) this.#runs.delete(reply.faultId);
    const piece = slice(rest, 0, frame.pageCount);
    if (frame.kind === 'zero') this.#install('zeropage', piece, NO_BYTES);
    else this.#install(callForPrefetch(this.#o.traits, true), piece, frame.bytes);
  }

  /** The stream is gone: what was asked for is missing again. */
  giveBack(): void {
    for (const [faultId, inFlight] of this.#runs) this.#release(faultId, inFlight);
  }

  #install(call: 'zeropage' | ReturnType<typeof callForPrefetch>, run: PlacedRun, bytes: Uint8Array): void {
    const result = this.#installer.install(call, run, bytes, 0);
    switch (result.kind) {
      case 'installed':
        this.#o.counters.add('neighboursInstalled', result.pages);
        this.#o.woken(call, result.waiters);
        return;
      case 'again':
      case 'no-memory': {
        this.#o.counters.add('neighboursInstalled', result.done);
        this.#o.woken(call, result.waiters);
        const rest = slice(run, result.done, run.pageCount - result.done);
        // A copy (which `slice` of a Buffer is not): the message's place is taken by the next one.
        const left = new Uint8Array(bytes.subarray(result.done * run.region.pageSizeBytes));
        const retry = (): void => this.#install(call, rest, left);
        if (result.kind === 'again') {
          this.#o.retries.afterDrain(retry);
        } else {
          this.#o.alarm('no memory for the neighbours of a fault; tried again');
          this.#o.retries.afterBackOff(retry);
        }
        return;
      }
      case 'exited':
        this.#o.vmmExited();
        return;
      case 'alarm':
        this.#o.fatal({ reason: ErrorReason.INTERNAL, message: result.message, metadata: {} });
    }
  }

  /**
   * Asked for again, and not given back: prefetch may have found nothing missing and rest, so pages that nobody touches would be missing for good. Under a
   * new id, as more frames of the old one may be on their way.
   */
  #refuse(faultId: number, inFlight: RunInFlight, { reason, message }: LaneError, batch: FaultOnWire[]): void {
    this.#o.counters.add('badFrames');
    if (++this.#refusals >= MAX_REFUSALS) {
      this.#release(faultId, inFlight);
      this.#o.fatal({ reason, message, metadata: { refused_frames: String(this.#refusals) } });
      return;
    }
    this.#o.alarm(`frame refused, asked for again: ${message}`);
    this.#runs.delete(faultId);
    const newId = this.#o.nextId();
    this.#runs.set(newId, inFlight);
    const { region, firstPage, pageCount } = inFlight.run;
    const { next } = inFlight;
    batch.push({ faultId: newId, region: region.index, page: firstPage + next, pageCount: pageCount - next });
  }

  #release(faultId: number, { run, next }: RunInFlight): void {
    this.#runs.delete(faultId);
    const left = run.pageCount - next;
    this.#pagesInFlight -= left;
    const first = run.region.firstLedgerPage + run.firstPage + next;
    const waiters = this.#o.ledger.release(first, left, this.#scratch);
    if (waiters > 0) this.#o.orphans(this.#scratch.slice(0, waiters));
  }
}
