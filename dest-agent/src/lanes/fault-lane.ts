/**
 * The fault lane: userfaultfd event in, page in place and vCPU running out. It has an event loop to itself; nothing here waits, and nothing
 * here is done that could be done elsewhere.
 */
import {
  callForData,
  callForZero,
  type ContentCall,
  type InstallCall,
  type MemoryTraits,
  type PagePlace,
} from '@pagewake/core';
import { decodeFrame, Unpacked } from '../adapters/frames.ts';
import { LoopSpin, monotonicMs, type PageLedger } from '../adapters/ledger.ts';
import type { VmMemory } from '../adapters/memory.ts';
import type { FaultRequests, FaultsReply } from '../adapters/page-source.ts';
import { AMONG_SEVERAL_US, ErrorReason, SEVERAL_FAULTS } from '../kit.ts';
import type { Counters, FaultCounter, FaultHint } from './counters.ts';
import { FaultIntake, type FaultEvent } from './fault-intake.ts';
import type { FaultTracer, TracedInstall } from './fault-trace.ts';
import { PageInstaller } from './installer.ts';
import { LocalResolver } from './local-resolver.ts';
import type { FaultTuning, FromLane, Stage2Request, TraceIds } from './messages.ts';
import { Neighbours } from './neighbours.ts';
import { PendingFaults, type PendingFault, type Waiter } from './pending.ts';
import { RequestBatch } from './request-batch.ts';
import { Resolutions } from './resolutions.ts';
import { RetryQueue } from './retry-queue.ts';
import { StallClock } from './stalls.ts';

/** After so many refused frames for one page the source is not believed any more. */
const MAX_REFUSALS = 3;

export interface FaultLaneOptions {
  readonly memory: VmMemory;
  readonly ledger: PageLedger;
  readonly traits: MemoryTraits;
  readonly removeEvents: boolean;
  readonly vcpuThreads: ReadonlySet<number>;
  readonly counters: Counters<FaultCounter>;
  readonly hint: FaultHint;
  readonly tracer: FaultTracer;
  readonly tuning: FaultTuning;
  post(message: FromLane): void;
}

export class FaultLane {
  readonly #o: FaultLaneOptions;
  readonly #installer: PageInstaller;
  readonly #intake: FaultIntake | undefined;
  readonly #local: LocalResolver;
  readonly #retries: RetryQueue;
  readonly #pending = new PendingFaults();
  readonly #stalls = new StallClock();
  readonly #neighbours: Neighbours;
  readonly #spin: LoopSpin;
  readonly #scratch: Uint32Array;
  #removedWaiters: number[] = [];
  readonly #batch = new RequestBatch();
  readonly #unpacked = new Unpacked();
  #stream: FaultRequests | undefined;
  #held: 'no' | 'guest-waits' | 'guest-runs' = 'no';
  #whole = false;
  readonly #resolutions: Resolutions;

  constructor(options: FaultLaneOptions) {
    this.#o = options;
    this.#installer = new PageInstaller(options.memory, options.ledger, options.traits.minor);
    this.#resolutions = new Resolutions(options);
    this.#scratch = new Uint32Array(options.memory.layout.pageCount);
    this.#retries = new RetryQueue(
      () => this.drain(),
      () => this.#flush(),
    );
    this.#local = new LocalResolver({
      ...options,
      retries: this.#retries,
      resolved: (call, place, waiters) => this.#resolutions.note(call, place, waiters),
      missing: (place, waiter) => this.#resolve(place, waiter, undefined),
      vmmExited: () => options.post({ type: 'vmm-exited' }),
      alarm: (message) => this.#alarm(message),
      fatal: (message) => this.#fatal(message),
    });
    this.#spin = new LoopSpin(options.tuning.spinUs, AMONG_SEVERAL_US);
    this.#neighbours = new Neighbours({
      ...options,
      windowPages: options.tuning.windowPages,
      retries: this.#retries,
      nextId: () => this.#pending.nextId(),
      woken: (call, pages) => {
        this.onWoken(call, pages, monotonicMs());
        this.checkWhole();
      },
      orphans: (pages) => this.onOrphans(pages),
      vmmExited: () => options.post({ type: 'vmm-exited' }),
      alarm: (message) => this.#alarm(message),
      fatal: (error) => options.post({ type: 'fatal', error }),
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
    this.#spin.close();
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
    if (this.#held === 'guest-waits') this.#stalls.start();
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
    this.#batch.clear();
    this.#neighbours.giveBack();
  }

  onResponse(reply: FaultsReply): void {
    const receivedAtMs = monotonicMs();
    this.#o.counters.add('payloadBytes', reply.frame?.payload.length ?? 0);
    this.#spin.touch(this.#pending.size >= SEVERAL_FAULTS);
    const pending = this.#pending.byId(reply.faultId);
    if (!pending) {
      // Else settled meanwhile by other means (the guest gave the page back).
      this.#neighbours.onResponse(reply, this.#batch.neighbours);
      this.#flush();
      return;
    }
    const { region, page } = pending;
    const frame = decodeFrame(
      reply.frame,
      { region: region.index, firstPage: page, pageCount: 1 },
      region.pageSizeBytes,
      this.#unpacked,
    );
    if (frame.kind === 'bad') {
      this.#refuse(pending, frame.reason, frame.message);
      return;
    }
    const verifiedAtMs = monotonicMs();
    const origin = pending.waiters[0]?.origin ?? 'user-space';
    const call = frame.kind === 'zero' ? callForZero(origin, this.#o.traits) : callForData(origin, this.#o.traits);
    const bytes = frame.kind === 'zero' ? this.#local.zeroPage(region.pageSizeBytes) : frame.bytes;
    const times = { receivedAtMs, verifiedAtMs };
    const { tracer } = this.#o;
    const traced = pending.trace.sampled
      ? tracer.note(pending, { call, encoding: frame.kind, reply }, times)
      : undefined;
    this.#install(pending, call, bytes, traced);
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
    if (this.#asking) this.#batch.ask(pending);
  }

  get #asking(): boolean {
    return this.#stream !== undefined && this.#held === 'no';
  }

  #flush(): void {
    if (this.#batch.empty || !this.#stream) return;
    this.#spin.touch(this.#pending.size >= SEVERAL_FAULTS);
    this.#batch.sendTo(this.#stream);
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

  /** Stage-2 faults that came as requests on the VMM channel. */
  onStage2Requests(faults: readonly Stage2Request[]): void {
    const readAtMs = monotonicMs();
    this.#o.counters.add('total', faults.length);
    this.#o.counters.add('stage2', faults.length);
    this.#o.counters.add('stage2Exits', faults.length);
    for (const { id, ledgerPage, parent } of faults) {
      const place = this.#o.memory.layout.atLedgerPage(ledgerPage);
      if (place) this.#resolve(place, { origin: 'stage2-exit', threadId: 0, readAtMs, stage2Id: id }, parent);
    }
    this.#flush();
  }

  #resolve(place: PagePlace, waiter: Waiter, parent: TraceIds | undefined): void {
    const ledgerPage = place.region.firstLedgerPage + place.page;
    switch (this.#o.ledger.fault(ledgerPage)) {
      case 'claimed':
        this.#o.hint.post(ledgerPage);
        this.#o.counters.add('fromSource');
        this.#ask(this.#pending.add({ ...place, ledgerPage, waiters: [waiter], trace: this.#o.tracer.begin(parent) }));
        if (this.#asking) this.#neighbours.askAround(place, this.#batch.neighbours);
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

  #install(pending: PendingFault, call: ContentCall, bytes: Uint8Array, traced: TracedInstall | undefined): void {
    // Settled by other means while this waited for a retry.
    if (this.#pending.byId(pending.faultId) !== pending) return;
    const trapped = pending.waiters.some(({ origin }) => origin !== 'stage2-exit');
    const result = this.#installer.installPage(call, pending, bytes, trapped);
    switch (result.kind) {
      case 'installed': {
        const installedAtMs = monotonicMs();
        this.#pending.settle(pending);
        this.#o.counters.add('pagesInstalled', result.pages);
        for (const waiter of pending.waiters) this.#stalls.record(waiter, installedAtMs);
        this.#resolutions.note(call, pending, pending.waiters);
        traced?.(installedAtMs);
        this.checkWhole();
        return;
      }
      case 'again':
        this.#retries.afterDrain(this.#retryOf(pending, call, bytes, traced));
        return;
      case 'no-memory':
        this.#alarm(`no memory for page ${pending.page} of region ${pending.region.index}; its waiter stays blocked`);
        this.#retries.afterBackOff(this.#retryOf(pending, call, bytes, traced));
        return;
      case 'exited':
        this.#o.post({ type: 'vmm-exited' });
        return;
      case 'alarm':
        this.#fatal(result.message);
    }
  }

  /** Of a copy: the message's place is taken by the next one. */
  #retryOf(pending: PendingFault, call: ContentCall, bytes: Uint8Array, traced: TracedInstall | undefined): () => void {
    const own = Uint8Array.from(bytes);
    return () => this.#install(pending, call, own, traced);
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
      for (const waiter of waiters) this.#stalls.record(waiter, atMs);
      if (place) this.#resolutions.note(call, place, waiters);
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
    this.#stalls.writeTo(this.#o.counters);
  }

  #alarm(message: string): void {
    this.#o.post({ type: 'alarm', message });
  }

  #fatal(message: string): void {
    this.#o.post({ type: 'fatal', error: { reason: ErrorReason.INTERNAL, message, metadata: {} } });
  }
}
