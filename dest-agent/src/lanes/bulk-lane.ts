/**
 * The bulk lane: prefetch. Keeps a few ranges asked for (each is a credit that the source got), installs what comes, and moves to where
 * the latest fault was.
 */
import {
  callForPrefetch,
  MOST_RANGE_BYTES,
  PrefetchCursor,
  PrefetchPacing,
  type ContentCall,
  type MemoryTraits,
} from '@pagewake/core';
import { decodeAnyFrame, Unpacked, type SparseFrame } from '../adapters/frames.ts';
import { monotonicMs, type PageLedger } from '../adapters/ledger.ts';
import { sizeOf, type PlacedRun, type VmMemory } from '../adapters/memory.ts';
import type { BulkReply, BulkRequests } from '../adapters/page-source.ts';
import { ErrorReason } from '../kit.ts';
import type { BulkCounter, Counters, FaultHint } from './counters.ts';
import { NO_BYTES, PageInstaller, slice, type InstallResult } from './installer.ts';
import type { FromLane, LaneToLane } from './messages.ts';

/**
 * Where faults have taken single pages out of everywhere, what is left is runs of a few pages: then credits are counted in bytes and not in
 * ranges, or a link would carry four short runs a round trip (`npm start -- --ram 256M --workload 128M`: 6.8 s until whole with four ranges, 3.0 s so).
 */
const MAX_RANGES = 64;
/** How long prefetch leaves the cores to a VMM that is about to run its guest: as long as that takes where nothing goes wrong (docs/performance.md). */
export const YIELD_MS = 25;
/** After so many refused frames in a row the source is not believed any more. */
const MAX_REFUSALS = 3;
const BACKOFF_MS = 100;

export interface BulkLaneOptions {
  readonly memory: VmMemory;
  readonly ledger: PageLedger;
  readonly traits: MemoryTraits;
  readonly trapped: boolean;
  readonly counters: Counters<BulkCounter>;
  readonly hint: FaultHint;
  post(message: FromLane): void;
  postToFaultLane(message: LaneToLane): void;
}

/** A range that was asked for: `next` is the first page that has not come yet. */
interface RangeInFlight {
  readonly run: PlacedRun;
  readonly askedMs: number;
  next: number;
}

export class BulkLane {
  readonly #o: BulkLaneOptions;
  readonly #installer: PageInstaller;
  readonly #cursor: PrefetchCursor;
  readonly #pacing = new PrefetchPacing();
  readonly #ranges = new Map<number, RangeInFlight>();
  readonly #scratch: Uint32Array;
  #stream: BulkRequests | undefined;
  #nextRangeId = 1;
  #bytesInFlight = 0;
  #held = false;
  #paused = false;
  #refusals = 0;
  #whole = false;
  readonly #unpacked = new Unpacked();
  #zeros: Uint8Array = NO_BYTES;

  constructor(options: BulkLaneOptions) {
    this.#o = options;
    this.#installer = new PageInstaller(options.memory, options.ledger, options.traits.minor);
    const spans = options.memory.layout.regions.map((r) => ({
      first: r.firstLedgerPage,
      end: r.firstLedgerPage + r.pageCount,
      maxPages: Math.max(1, MOST_RANGE_BYTES / r.pageSizeBytes),
    }));
    this.#scratch = new Uint32Array(Math.max(...spans.map((span) => span.maxPages)));
    this.#cursor = new PrefetchCursor(spans);
  }

  useStream(stream: BulkRequests): void {
    this.#stream = stream;
    this.#fill();
    this.#checkWhole();
  }

  /** What was asked for is missing again; who waits for it must ask on the fault lane. */
  dropStream(): void {
    this.#stream?.cancel();
    this.#stream = undefined;
    for (const [rangeId, range] of this.#ranges) this.#giveBack(rangeId, range);
  }

  /** The source's memory is not final yet: nothing is asked for until `go`. */
  hold(): void {
    this.#held = true;
  }

  /** @param guestStarts now: whatever it does not wait for waits for a moment itself */
  go(guestStarts: boolean): void {
    this.#checkWhole();
    const begin = (): void => {
      this.#held = false;
      this.#fill();
    };
    if (guestStarts) setTimeout(begin, YIELD_MS);
    else begin();
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    this.#fill();
  }

  #fill(): void {
    if (!this.#stream || this.#held || this.#paused) return;
    const fault = this.#o.hint.take();
    const now = monotonicMs();
    if (fault !== undefined) {
      this.#cursor.moveTo(fault);
      this.#pacing.fault(now);
    }
    if (this.#ranges.size === 0) this.#pacing.idle();
    const creditBytes = this.#pacing.creditBytes(now);
    while (this.#bytesInFlight < creditBytes && this.#ranges.size < MAX_RANGES) {
      const claim = this.#cursor.claim(this.#o.ledger, this.#pacing.rangeBytes / MOST_RANGE_BYTES);
      if (!claim) break;
      const place = this.#o.memory.layout.atLedgerPage(claim.first);
      if (!place) throw new RangeError(`claimed page ${claim.first} is in no region`);
      const run: PlacedRun = { region: place.region, firstPage: place.page, pageCount: claim.count };
      const rangeId = this.#nextRangeId++;
      this.#ranges.set(rangeId, { run, askedMs: now, next: 0 });
      this.#bytesInFlight += sizeOf(run);
      this.#stream.request({ rangeId, region: run.region.index, firstPage: run.firstPage, pageCount: run.pageCount });
    }
    this.#o.counters.set('rangesInFlight', this.#ranges.size);
  }

  onResponse(reply: BulkReply): void {
    const range = this.#ranges.get(reply.rangeId);
    if (!range) return;
    const { run } = range;
    this.#o.counters.add('payloadBytes', reply.frame?.payload.length ?? 0);
    const expected = {
      region: run.region.index,
      firstPage: run.firstPage + range.next,
      pageCount: run.pageCount - range.next,
    };
    const frame = decodeAnyFrame(reply.frame, expected, run.region.pageSizeBytes, this.#unpacked);
    if (frame.kind === 'bad') {
      this.#refuse(reply.rangeId, range, frame.reason, frame.message);
      return;
    }
    if (reply.rangeDone !== (frame.pageCount === expected.pageCount)) {
      this.#refuse(
        reply.rangeId,
        range,
        ErrorReason.MALFORMED_FRAME,
        'a range that does not end where it was asked to',
      );
      return;
    }
    this.#refusals = 0;
    range.next += frame.pageCount;
    if (reply.rangeDone) {
      this.#forget(reply.rangeId, range);
      this.#pacing.came(sizeOf(run), range.askedMs, monotonicMs());
    }
    const piece: PlacedRun = { region: run.region, firstPage: expected.firstPage, pageCount: frame.pageCount };
    if (frame.kind === 'data') this.#install(callForPrefetch(this.#o.traits, this.#o.trapped), piece, frame.bytes, 0);
    else if (frame.kind === 'sparse') this.#installSparse(piece, frame);
    else this.#noteZeros(piece);
    this.#fill();
  }

  #installSparse(run: PlacedRun, { bytes, zeros }: SparseFrame): void {
    const call = callForPrefetch(this.#o.traits, this.#o.trapped);
    let offset = 0;
    let page = 0;
    for (let i = 0; i <= zeros.length; i += 2) {
      const end = zeros[i] ?? run.pageCount;
      if (end > page) this.#install(call, slice(run, page, end - page), bytes, offset);
      offset += (end - page) * run.region.pageSizeBytes;
      const zeroPages = zeros[i + 1] ?? 0;
      if (zeroPages > 0) this.#noteZeros(slice(run, end, zeroPages));
      page = end + zeroPages;
    }
  }

  /**
   * Pages that the source found to be zero only when it read them. Their places are as empty as they were made, so they are known to be zero from here on
   * and a touch is answered without the source; only a thread that waits already has to be given a page.
   */
  #noteZeros(run: PlacedRun): void {
    const { traits, trapped, ledger } = this.#o;
    // A file was looked at when it was handed over; whether there is something in anonymous memory the kernel alone can say, where a page is installed.
    if (trapped && traits.file === 'none') {
      this.#installZeros(run);
      return;
    }
    const first = run.region.firstLedgerPage + run.firstPage;
    // Untrapped memory has no touch that could be answered, and nobody waits for it: it is there.
    const waiters = trapped
      ? ledger.foundZero(first, run.pageCount, this.#scratch)
      : ledger.installed(first, run.pageCount, this.#scratch);
    this.#o.counters.add('pagesInstalled', run.pageCount - waiters);
    for (const ledgerPage of this.#scratch.slice(0, waiters)) this.#installZeros(slice(run, ledgerPage - first, 1));
    this.#checkWhole();
  }

  #installZeros(run: PlacedRun): void {
    if (this.#o.traits.huge) this.#install('copy', run, this.#zeroBytes(run), 0);
    else this.#install('zeropage', run, NO_BYTES, 0);
  }

  #install(call: ContentCall, run: PlacedRun, bytes: Uint8Array, offset: number): void {
    const result = this.#installer.install(call, run, bytes, offset);
    this.#count(result);
    switch (result.kind) {
      case 'installed':
        this.#tellWoken(call, result.waiters);
        this.#checkWhole();
        return;
      case 'again':
      case 'no-memory': {
        this.#tellWoken(call, result.waiters);
        if (result.kind === 'no-memory')
          this.#o.post({ type: 'alarm', message: 'no memory for prefetch; tried again' });
        const { region } = run;
        const rest: PlacedRun = {
          region,
          firstPage: run.firstPage + result.done,
          pageCount: run.pageCount - result.done,
        };
        // A copy (which `slice` of a Buffer is not): the message's place is taken by the next one.
        const left = new Uint8Array(bytes.subarray(offset + result.done * region.pageSizeBytes));
        const retry = (): void => this.#install(call, rest, left, 0);
        // The fault lane reads the event that is in the way; this lane has only to wait for it.
        if (result.kind === 'again') setImmediate(retry);
        else setTimeout(retry, BACKOFF_MS);
        return;
      }
      case 'exited':
        this.#o.post({ type: 'vmm-exited' });
        return;
      case 'alarm':
        this.#o.post({ type: 'fatal', error: { reason: ErrorReason.INTERNAL, message: result.message, metadata: {} } });
    }
  }

  #count(result: InstallResult): void {
    if (result.kind === 'installed') this.#o.counters.add('pagesInstalled', result.pages);
    else if (result.kind === 'again' || result.kind === 'no-memory')
      this.#o.counters.add('pagesInstalled', result.done);
  }

  #tellWoken(call: ContentCall, pages: Uint32Array): void {
    if (pages.length > 0) this.#o.postToFaultLane({ type: 'woken', call, pages, atMs: monotonicMs() });
  }

  #refuse(rangeId: number, range: RangeInFlight, reason: ErrorReason, message: string): void {
    this.#o.counters.add('badFrames');
    this.#giveBack(rangeId, range);
    if (++this.#refusals >= MAX_REFUSALS) {
      this.#o.post({
        type: 'fatal',
        error: { reason, message, metadata: { refused_frames: String(this.#refusals) } },
      });
      return;
    }
    this.#o.post({ type: 'alarm', message: `frame refused, asked for again: ${message}` });
    this.#fill();
  }

  #forget(rangeId: number, range: RangeInFlight): void {
    this.#ranges.delete(rangeId);
    this.#bytesInFlight -= sizeOf(range.run);
    this.#o.counters.set('rangesInFlight', this.#ranges.size);
  }

  #giveBack(rangeId: number, range: RangeInFlight): void {
    this.#forget(rangeId, range);
    const first = range.run.region.firstLedgerPage + range.run.firstPage + range.next;
    const waiters = this.#o.ledger.release(first, range.run.pageCount - range.next, this.#scratch);
    if (waiters > 0) this.#o.postToFaultLane({ type: 'orphans', pages: this.#scratch.slice(0, waiters) });
  }

  #checkWhole(): void {
    if (this.#whole || !this.#o.ledger.isWhole()) return;
    this.#whole = true;
    this.#o.post({ type: 'whole' });
  }

  #zeroBytes(run: PlacedRun): Uint8Array {
    const size = run.pageCount * run.region.pageSizeBytes;
    if (this.#zeros.length < size) this.#zeros = new Uint8Array(size);
    return this.#zeros;
  }
}
