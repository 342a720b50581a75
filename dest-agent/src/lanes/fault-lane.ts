/**
 * The fault lane: userfaultfd event in, page in place and vCPU running out. It has an event loop to itself; nothing here waits, and nothing
 * here is done that could be done elsewhere.
 */
import { createHistogram } from 'node:perf_hooks';
import {
  callForData,
  callForZero,
  type ContentCall,
  type InstallCall,
  type MemoryTraits,
  type PagePlace,
} from '@pagewake/core';
import { decodeFrame } from '../adapters/frames.ts';
import { monotonicMs, type PageLedger } from '../adapters/ledger.ts';
import type { VmMemory } from '../adapters/memory.ts';
import type { FaultOnWire, FaultRequests, FaultsReply } from '../adapters/page-source.ts';
import { ErrorReason, unixMs } from '../kit.ts';
import type { Counters, FaultCounter, FaultHint } from './counters.ts';
import { FaultIntake, type FaultEvent } from './fault-intake.ts';
import type { FaultTracer } from './fault-trace.ts';
import { PageInstaller } from './installer.ts';
import { LocalResolver, runOf } from './local-resolver.ts';
import type { FromLane, TraceIds } from './messages.ts';
import { PendingFaults, type PendingFault, type Waiter } from './pending.ts';
import { RetryQueue } from './retry-queue.ts';

/** Of a trace context's flags. */
const SAMPLED = 1;
/** After so many refused frames for one page the source is not believed any more. */
const MAX_REFUSALS = 3;
/** An hour; what takes longer is not recorded. */
const HIGHEST_STALL_NS = 3_600_000_000_000;

export interface FaultLaneOptions {
  readonly memory: VmMemory;
  readonly ledger: PageLedger;
  readonly traits: MemoryTraits;
  readonly removeEvents: boolean;
  readonly vcpuThreads: ReadonlySet<number>;
  readonly counters: Counters<FaultCounter>;
  readonly hint: FaultHint;
  readonly tracer: FaultTracer;
  post(message: FromLane): void;
}

export class FaultLane {
  readonly #o: FaultLaneOptions;
  readonly #installer: PageInstaller;
  readonly #intake: FaultIntake | undefined;
  readonly #local: LocalResolver;
  readonly #retries: RetryQueue;
  readonly #pending = new PendingFaults();
  readonly #stalls = createHistogram({ lowest: 1, highest: HIGHEST_STALL_NS, figures: 3 });
  readonly #scratch: Uint32Array;
  #removedWaiters: number[] = [];
  #batch: FaultOnWire[] = [];
  #stream: FaultRequests | undefined;
  #held: 'no' | 'guest-waits' | 'guest-runs' = 'no';
  /** A stall that began before this began here: until then no guest ran. */
  #ranFromMs = 0;
  #whole = false;

  constructor(options: FaultLaneOptions) {
    this.#o = options;
    this.#installer = new PageInstaller(options.memory, options.ledger);
    this.#scratch = new Uint32Array(options.memory.layout.pageCount);
    this.#retries = new RetryQueue(
      () => this.drain(),
      () => this.#flush(),
    );
    this.#local = new LocalResolver({
      ...options,
      retries: this.#retries,
      resolved: (call, place, waiters) => this.#resolved(call, place, waiters),
      missing: (place, waiter) => this.#resolve(place, waiter, undefined),
      vmmExited: () => options.post({ type: 'vmm-exited' }),
      alarm: (message) => this.#alarm(message),
      fatal: (message) => this.#fatal(message),
    });
    const { uffd, layout } = options.memory;
    this.#intake =
      uffd &&
      new FaultIntake(uffd, layout, options.removeEvents ? options.ledger : undefined, {
        onRemoved: (first, count) => this.#noteRemoved(first, count),
        onFault: (event) => this.#onFault(event),
        onDrained: () => {
          this.#resolveRemoved();
          this.#flush();
        },
        onClosed: (message) => this.#fatal(`the userfaultfd cannot be read any more: ${message}`),
        onAlarm: (message) => this.#alarm(message),
      });
  }

  /** From now on faults are taken; threads may have touched memory since the VMM registered it. */
  start(): void {
    // Whoever waits for an event that another reader took (an earlier migration, an agent that died) faults once more, and for us.
    for (const region of this.#o.memory.layout.regions)
      this.#o.memory.wake({ region, firstPage: 0, pageCount: region.pageCount });
    this.#intake?.start();
  }

  /** Reads and handles what the userfaultfd has. */
  drain(): void {
    this.#intake?.drain();
  }

  /** Before the ranges are given back to the kernel, which then wakes everybody. */
  stop(): void {
    this.#retries.stop();
  }

  // ── The source ────────────────────────────────────────────────────────────────────────────────────────────────

  /** From now on faults go to this stream; those that wait are asked for again. */
  useStream(stream: FaultRequests): void {
    this.#stream = stream;
    this.#askAll();
  }

  /**
   * The source's memory is not final yet: faults are kept, and nothing is asked for until `go`.
   * @param guestRuns already: Firecracker's does not wait for us
   */
  hold(guestRuns: boolean): void {
    this.#held = guestRuns ? 'guest-runs' : 'guest-waits';
  }

  go(): void {
    if (this.#held === 'guest-waits') this.#ranFromMs = monotonicMs();
    this.#held = 'no';
    this.#askAll();
  }

  #askAll(): void {
    for (const pending of this.#pending.all()) this.#ask(pending);
    this.#flush();
  }

  /** The link is lost, or not needed any more. Faults that come now are kept until there is a stream again. */
  dropStream(): void {
    this.#stream?.cancel();
    this.#stream = undefined;
    this.#batch = [];
  }

  onResponse(reply: FaultsReply): void {
    const receivedAtMs = monotonicMs();
    const pending = this.#pending.byId(reply.faultId);
    // Settled meanwhile by other means (the guest gave the page back).
    if (!pending) return;
    const { region, page } = pending;
    this.#o.counters.add('payloadBytes', reply.frame?.payload.length ?? 0);
    const frame = decodeFrame(
      reply.frame,
      { region: region.index, firstPage: page, pageCount: 1 },
      region.pageSizeBytes,
    );
    if (frame.kind === 'bad') {
      this.#refuse(pending, frame.reason, frame.message);
      return;
    }
    const verifiedAtMs = monotonicMs();
    const origin = pending.waiters[0]?.origin ?? 'user-space';
    const call = frame.kind === 'zero' ? callForZero(origin, this.#o.traits) : callForData(origin, this.#o.traits);
    const bytes = frame.kind === 'zero' ? this.#local.zeroPage(region.pageSizeBytes) : frame.bytes;
    this.#install(pending, call, bytes, (installedAtMs) => {
      const timings = reply.frame?.timings;
      const result = {
        call,
        encoding: frame.kind,
        payloadBytes: reply.frame?.payload.length ?? 0,
        sourceQueueNs: timings?.queueNs ?? 0,
        sourceReadNs: timings?.readNs ?? 0,
        sourceEncodeNs: timings?.encodeNs ?? 0,
      };
      this.#o.tracer.end(pending, result, { receivedAtMs, verifiedAtMs, installedAtMs }, unixOffsetMs());
    });
  }

  #refuse(pending: PendingFault, reason: ErrorReason, message: string): void {
    this.#o.counters.add('badFrames');
    pending.refusals++;
    if (pending.refusals >= MAX_REFUSALS) {
      this.#o.post({
        type: 'fatal',
        error: { reason, message, metadata: { refused_frames: String(pending.refusals) } },
      });
      return;
    }
    this.#alarm(`frame refused, asked for again: ${message}`);
    this.#ask(pending);
    this.#flush();
  }

  #ask(pending: PendingFault): void {
    if (!this.#stream || this.#held !== 'no') return;
    pending.requestedAtMs = monotonicMs();
    this.#batch.push({
      faultId: pending.faultId,
      region: pending.region.index,
      page: pending.page,
      pageCount: 1,
      trace: {
        traceId: Buffer.from(pending.trace.traceId, 'hex'),
        spanId: Buffer.from(pending.trace.requestSpanId, 'hex'),
        flags: pending.trace.sampled ? SAMPLED : 0,
      },
    });
  }

  #flush(): void {
    if (this.#batch.length === 0) return;
    const batch = this.#batch;
    this.#batch = [];
    this.#stream?.request(batch);
  }

  // ── Faults ────────────────────────────────────────────────────────────────────────────────────────────────────

  #onFault(event: FaultEvent): void {
    const stage2 = this.#o.vcpuThreads.has(event.threadId);
    const { counters } = this.#o;
    counters.add('total');
    if (event.kind === 'minor') counters.add('minor');
    else counters.add(stage2 ? 'stage2' : 'userSpace');
    const waiter: Waiter = {
      origin: stage2 ? 'stage2-trap' : 'user-space',
      threadId: event.threadId,
      readAtMs: event.readAtMs,
      stage2Id: undefined,
    };
    if (event.kind === 'minor') this.#local.minor(event.place, waiter);
    else this.#resolve(event.place, waiter, undefined);
  }

  /** A stage-2 fault that came as a request on the VMM channel. */
  onStage2Request(id: number, place: PagePlace, parent: TraceIds | undefined): void {
    this.#o.counters.add('total');
    this.#o.counters.add('stage2');
    this.#resolve(place, { origin: 'stage2-exit', threadId: 0, readAtMs: monotonicMs(), stage2Id: id }, parent);
    this.#flush();
  }

  #resolve(place: PagePlace, waiter: Waiter, parent: TraceIds | undefined): void {
    const ledgerPage = place.region.firstLedgerPage + place.page;
    switch (this.#o.ledger.fault(ledgerPage)) {
      case 'claimed':
        this.#o.hint.post(ledgerPage);
        this.#o.counters.add('fromSource');
        this.#ask(this.#pending.add({ ...place, ledgerPage, waiters: [waiter], trace: this.#o.tracer.begin(parent) }));
        return;
      case 'waiting':
        this.#o.counters.add('fromPrefetchInFlight');
        this.#pending.join(ledgerPage, waiter);
        return;
      case 'zero':
      case 'removed':
        this.#local.zero(place, [waiter]);
        return;
      case 'present':
        this.#local.present(place, waiter);
    }
  }

  #install(
    pending: PendingFault,
    call: ContentCall,
    bytes: Uint8Array,
    onInstalled: (installedAtMs: number) => void,
  ): void {
    // Settled by other means while this waited for a retry.
    if (this.#pending.byId(pending.faultId) !== pending) return;
    const result = this.#installer.install(call, runOf(pending), bytes, 0);
    switch (result.kind) {
      case 'installed': {
        const installedAtMs = monotonicMs();
        this.#pending.settle(pending);
        this.#o.counters.add('pagesInstalled', result.pages);
        for (const waiter of pending.waiters) this.#recordStall(waiter, installedAtMs);
        this.#resolved(call, pending, pending.waiters);
        onInstalled(installedAtMs);
        this.checkWhole();
        return;
      }
      case 'again':
        this.#retries.afterDrain(this.#retryOf(pending, call, bytes, onInstalled));
        return;
      case 'no-memory':
        this.#alarm(`no memory for page ${pending.page} of region ${pending.region.index}; its waiter stays blocked`);
        this.#retries.afterBackOff(this.#retryOf(pending, call, bytes, onInstalled));
        return;
      case 'exited':
        this.#o.post({ type: 'vmm-exited' });
        return;
      case 'alarm':
        this.#fatal(result.message);
    }
  }

  /** Of a copy: the message's place is taken by the next one. */
  #retryOf(
    pending: PendingFault,
    call: ContentCall,
    bytes: Uint8Array,
    onInstalled: (installedAtMs: number) => void,
  ): () => void {
    const own = Uint8Array.from(bytes);
    return () => this.#install(pending, call, own, onInstalled);
  }

  // ── What the guest gives back ─────────────────────────────────────────────────────────────────────────────────

  /** Inside the intake's lock: the ledger is told, waiters are resolved once everything has been read. */
  #noteRemoved(first: number, count: number): void {
    // No guest has run yet: a VMM that clears its memory as it starts means nothing that the source's guest did.
    if (this.#held === 'guest-waits') return;
    this.#o.counters.add('removedEvents');
    const waiters = this.#o.ledger.remove(first, count, this.#scratch);
    for (let i = 0; i < waiters; i++) this.#removedWaiters.push(this.#scratch[i] ?? 0);
  }

  onRemovedMessage(first: number, count: number): void {
    this.#o.ledger.lockExclusive();
    this.#noteRemoved(first, count);
    this.#o.ledger.unlockExclusive();
    this.#resolveRemoved();
    this.checkWhole();
  }

  #resolveRemoved(): void {
    if (this.#removedWaiters.length === 0) return;
    const pages = this.#removedWaiters;
    this.#removedWaiters = [];
    for (const ledgerPage of pages) this.#resolveSettled(ledgerPage);
    this.checkWhole();
  }

  #resolveSettled(ledgerPage: number): void {
    const waiters = this.#pending.settlePage(ledgerPage);
    const place = this.#o.memory.layout.atLedgerPage(ledgerPage);
    if (place && waiters.length > 0) this.#local.zero(place, waiters);
  }

  // ── The other lane ────────────────────────────────────────────────────────────────────────────────────────────

  /** Bulk has installed and woken these. */
  onWoken(call: InstallCall, pages: Uint32Array, atMs: number): void {
    for (const ledgerPage of pages) {
      const waiters = this.#pending.takeOnBulk(ledgerPage);
      const place = this.#o.memory.layout.atLedgerPage(ledgerPage);
      for (const waiter of waiters) this.#recordStall(waiter, atMs);
      if (place) this.#resolved(call, place, waiters);
    }
  }

  /** Bulk lost these: whoever waits for them is a fault again. */
  onOrphans(pages: Uint32Array): void {
    for (const ledgerPage of pages) {
      const place = this.#o.memory.layout.atLedgerPage(ledgerPage);
      if (!place) continue;
      for (const waiter of this.#pending.takeOnBulk(ledgerPage)) this.#resolve(place, waiter, undefined);
    }
    this.#flush();
  }

  // ── The end ───────────────────────────────────────────────────────────────────────────────────────────────────

  /** Tells the main thread, once, that the ledger is full. */
  checkWhole(): void {
    if (this.#whole || !this.#o.ledger.isWhole()) return;
    this.#whole = true;
    this.#o.post({ type: 'whole' });
  }

  writeStalls(): void {
    const { counters } = this.#o;
    if (this.#stalls.count === 0) return;
    counters.set('stallP50Us', this.#stalls.percentile(50) / 1000);
    counters.set('stallP99Us', this.#stalls.percentile(99) / 1000);
    counters.set('stallMaxUs', this.#stalls.max / 1000);
  }

  #recordStall(waiter: Waiter, untilMs: number): void {
    this.#stalls.record(Math.max(1, Math.round((untilMs - Math.max(waiter.readAtMs, this.#ranFromMs)) * 1e6)));
  }

  #resolved(call: InstallCall, place: PagePlace, waiters: readonly Waiter[]): void {
    this.#o.counters.add(COUNTER_OF[call], waiters.length);
    const ledgerPage = place.region.firstLedgerPage + place.page;
    for (const { stage2Id } of waiters)
      if (stage2Id !== undefined) this.#o.post({ type: 'stage2-resolved', id: stage2Id, ledgerPage });
  }

  #alarm(message: string): void {
    this.#o.post({ type: 'alarm', message });
  }

  #fatal(message: string): void {
    this.#o.post({ type: 'fatal', error: { reason: ErrorReason.INTERNAL, message, metadata: {} } });
  }
}

const COUNTER_OF: Readonly<Record<InstallCall, FaultCounter>> = {
  copy: 'byCopy',
  zeropage: 'byZeropage',
  continue: 'byContinue',
  write: 'byWrite',
  store: 'byWrite',
  wake: 'byWake',
};

/** From the clock of the events to Unix time, now: the wall clock may be set, so every record takes it anew. */
const unixOffsetMs = (): number => unixMs() - monotonicMs();
