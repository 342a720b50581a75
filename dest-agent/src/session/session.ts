/**
 * One migration on the destination, from the call that prepares it to the ledger that is full. Owns the order of things; the lanes own the pages.
 */
import { closeSync } from 'node:fs';
import { DIALECTS } from '@pagewake/core';
import { SourceSession } from '../adapters/source-session.ts';
import { linkOptions } from '../adapters/link-options.ts';
import { ErrorReason, PagewakeError, reasonName } from '../kit.ts';
import { BULK_COUNTERS, FAULT_COUNTERS } from '../lanes/counters.ts';
import type { FromLane, SourceOpened } from '../lanes/messages.ts';
import { Alarms } from './alarms.ts';
import { endedOf } from './ended.ts';
import { poisonOrKill } from './ending.ts';
import { fromLane } from './lane.ts';
import { Lanes } from './lanes.ts';
import { PhaseMachine } from './phase-machine.ts';
import { STAGE } from './record.ts';
import type { SessionOptions } from './session-options.ts';
import { NO_LEDGER, readAll, type SessionSnapshot } from './snapshot.ts';
import { SourceSide, type OpenedFor } from './source-side.ts';
import type { ReceivedOffer } from './vmm-link.ts';
import { VmmSide } from './vmm-side.ts';

export class MigrationSession extends PhaseMachine {
  readonly migrationId: string;
  readonly vmId: string;
  readonly vmmSocket: string;
  readonly #o: SessionOptions;
  readonly #lanes: Lanes;
  readonly #source: SourceSide;
  readonly #vmm: VmmSide;
  readonly #alarms: Alarms;
  #error: PagewakeError | undefined;
  #fillingSinceMs: number | undefined;
  #filledAtMs: number | undefined;
  #linkLosses = 0;
  #lostEarly: PagewakeError | undefined;
  /** A guest may run on this memory, or pages have been put into it: giving up costs a guest from then on. */
  #atStake: boolean;
  /** The kernel has the ranges back: the VM is whole, whatever happens to anybody from here on. */
  #unregistered = false;
  #ending: Promise<void> | undefined;

  constructor(options: SessionOptions) {
    super();
    this.migrationId = options.migrationId;
    this.vmId = options.vmId;
    this.vmmSocket = options.vmmSocket;
    this.#o = options;
    this.#alarms = new Alarms(options.log);
    this.#atStake = options.continuity.goesOn;
    const source = new SourceSession(options.sourceAddress, linkOptions(options.credentials), options);
    this.#source = new SourceSide(source, options.log, {
      onFinal: () => this.#go(),
      onLost: (error) => this.#onLost(error),
      onBack: (opened) => this.#onBack(opened),
      onFailed: (error) => this.#failed(error),
    });
    this.#lanes = new Lanes({
      sourceAddress: options.sourceAddress,
      credentials: options.credentials,
      traceRatio: options.trace.sampled ? options.traceRatio : 0,
      faults: options.faults,
      patient: options.continuity.adopted,
      onMessage: (message) => this.#onLane(message),
      onCrash: (error) => {
        options.log.error({ err: error }, 'a lane crashed');
        this.#fail(new PagewakeError(ErrorReason.INTERNAL, `a lane of the agent crashed: ${error.message}`));
      },
    });
    this.#vmm = new VmmSide(options, options.log, {
      onOffer: (received) => this.#guard(this.#open(received)),
      onOrder: (order) => this.#lanes.order(order),
      onGone: () => this.#onVmmGone(),
      onFailed: (error) => this.#fail(error),
    });
  }

  // ── What the orchestrator asks for ──────────────────────────────────────────────────────────────────────────────

  /**
   * Starts the lanes, reaches the source, listens for the VMM.
   * @throws PagewakeError what stood in the way; the session is failed then
   */
  async prepare(): Promise<void> {
    const over = this.untilOver(() => this.#error ?? new PagewakeError(ErrorReason.CANCELLED, 'cancelled'));
    await Promise.race([Promise.all([this.#lanes.started(), this.#source.reach(this.#o.continuity.adopted)]), over]);
    try {
      this.#vmm.listen(this.#o.vmmSocket);
      this.#o.continuity.begin({
        onVmmGone: () => this.#onVmmGone(),
        onNobody: () => this.#guard(this.#finishAlone()),
      });
    } catch (error) {
      this.#failed(error);
      throw error;
    }
    this.enter('awaiting-vmm');
  }

  pausePrefetch(): void {
    this.#setPrefetch('paused');
    if (this.phase === 'filling') this.enter('paused');
  }

  resume(): void {
    this.#setPrefetch('resumed');
    if (this.phase === 'interrupted') this.#source.tryNow();
    else if (this.phase === 'paused') this.enter('filling');
  }

  /** Before prefetch has begun, and while the source is lost, this says only how it will begin. */
  #setPrefetch(wish: 'paused' | 'resumed'): void {
    if (this.phase === 'finishing' || this.over) throw this.wrongPhase(wish);
    this.#o.continuity.keepPrefetch(wish);
    this.#lanes.bulk.post({ type: wish === 'paused' ? 'pause' : 'resume' });
  }

  /** @param force also where a guest may run on what has come: it is lost then */
  cancel(force: boolean): void {
    if (!this.may('cancelled')) throw this.wrongPhase('cancelled');
    if (this.#atStake && !force)
      throw new PagewakeError(
        ErrorReason.WRONG_PHASE,
        `the guest may be running on this host already and is lost if its migration is cancelled while ${this.phase}; pagewake cancel --force does it all the same`,
        { phase: this.phase },
      );
    this.#giveUp('cancelled', new PagewakeError(ErrorReason.CANCELLED, 'cancelled by the orchestrator'));
  }

  /** The agent ends. A guest that is left without pages waits and never reads zeros: its VMM holds the userfaultfd too. */
  async leave(): Promise<void> {
    this.#source.stop();
    // What is over sees to its own end: somebody may still have to be helped out of waiting.
    await (this.over ? this.#ending : this.#release());
    this.#vmm.hangUp();
  }

  snapshot(): SessionSnapshot {
    const until = this.#filledAtMs ?? Date.now();
    return {
      migrationId: this.#o.migrationId,
      vmId: this.#o.vmId,
      phase: this.phase,
      error: this.#error,
      tier: this.#vmm.vm?.choice.tier,
      mode: this.#vmm.vm?.choice.mode,
      modeReason: this.#vmm.vm?.choice.reason ?? '',
      vmmSocket: this.#o.vmmSocket,
      startedAtMs: this.#o.startedAtMs,
      fillingMs: this.#fillingSinceMs === undefined ? 0 : until - this.#fillingSinceMs,
      linkLosses: this.#linkLosses,
      traceId: this.#o.trace.traceId,
      ledger: this.#vmm.vm?.totals() ?? NO_LEDGER,
      faults: readAll(this.#lanes.faultCounters, FAULT_COUNTERS),
      bulk: readAll(this.#lanes.bulkCounters, BULK_COUNTERS),
    };
  }

  // ── From the handshake to the first fault ───────────────────────────────────────────────────────────────────────

  async #open(received: ReceivedOffer): Promise<void> {
    if (!this.may('opening')) {
      // The migration ended while this was on its way: nobody else will close what came with it.
      for (const fd of received.descriptors) closeSync(fd);
      return;
    }
    this.enter('opening');
    const { continuity } = this.#o;
    const { goesOn } = continuity;
    const guestRuns = goesOn || !DIALECTS[received.offer.dialect].guestWaits;
    this.#atStake ||= guestRuns || received.offer.content === 'live';
    const vm = this.#vmm.admit(received);
    if (continuity.givenUp) throw continuity.givenUp;
    if (goesOn && vm.ledger.isWhole()) {
      await this.#finishAtOnce(vm);
      return;
    }
    const source = await (continuity.adopted ? this.#source.openPatiently(vm) : this.#source.open(vm));
    if (this.over) return;
    await this.#lanes.attach({
      memory: vm.attachment,
      descriptors: () => vm.duplicateDescriptors(),
      source,
      guestRuns,
      vcpuThreads: vm.vcpuThreads,
      trace: this.#o.trace,
    });
    if (this.over) return;
    // Which faults the agent before this one had read nobody knows.
    if (goesOn) vm.wakeAll();
    if (!this.#source.paused) this.#hold();
    this.#source.awaitFinal();
  }

  /** All that takes time is done, and the guest still runs on the source. */
  #hold(): void {
    this.enter('held');
    this.#o.log.info('held: waiting until the source’s VM stands still');
    this.#vmm.send({ type: 'held' });
    this.#tellLostEarly();
  }

  /** The source's memory is final. Its guest runs nowhere now, so nothing slow may stand here. */
  #go(): void {
    const { vm } = this.#vmm;
    if (!vm || !this.may('filling')) return;
    this.#atStake = true;
    vm.ledger.stage = STAGE.live;
    // Again, and before `go`: a lane that was not attached yet has not heard it.
    if (this.#o.continuity.prefetchPaused) this.#lanes.bulk.post({ type: 'pause' });
    this.#lanes.both({ type: 'go', guestStarts: this.phase === 'held' });
    this.#fillingSinceMs = Date.now();
    this.enter('filling');
    if (this.#o.continuity.prefetchPaused) this.enter('paused');
    if (vm.choice.mode === 'post-copy') this.#vmm.send({ type: 'ready' });
    this.#tellLostEarly();
    // A VM whose memory is all zeros has nothing to fetch; and a lane may have been whole before it was heard.
    this.#guard(this.#finish());
  }

  // ── What the lanes say ──────────────────────────────────────────────────────────────────────────────────────────

  #onLane(message: FromLane): void {
    switch (message.type) {
      case 'whole':
        this.#guard(this.#finish());
        return;
      case 'lost':
        this.#onStreamLost(fromLane(message.error));
        return;
      case 'fatal':
        this.#fail(fromLane(message.error));
        return;
      case 'vmm-exited':
        this.#onVmmGone();
        return;
      case 'stage2-resolved':
        this.#vmm.answerResolved(message.pages);
        return;
      case 'removed-noted':
        this.#vmm.send({ type: 'removed', offset: message.offset, len: message.len });
        return;
      case 'faults-traced':
        this.#o.onFaultsTraced(message.records);
        return;
      case 'alarm':
        this.#alarms.raise(message.message);
        return;
      default:
      // Answers that somebody waits for: `Lane.next`.
    }
  }

  #onStreamLost(error: PagewakeError): void {
    // One lane may lose its stream before the other has attached, and says so only once.
    if (this.phase === 'opening') this.#lostEarly = error;
    else if (this.phase === 'held' || this.may('interrupted')) this.#source.lost(error);
  }

  #tellLostEarly(): void {
    if (this.#lostEarly) this.#source.lost(this.#lostEarly);
    this.#lostEarly = undefined;
  }

  #onLost(error: PagewakeError): void {
    this.#linkLosses++;
    this.#o.log.warn({ error: error.message }, 'the link to the source is lost; faults wait, trying again');
    // Before the source's VM stands still nobody misses anything.
    if (this.phase === 'opening') this.#hold();
    if (this.phase === 'held') return;
    this.#error = new PagewakeError(ErrorReason.SOURCE_LOST, `the source is lost: ${error.message}`);
    this.enter('interrupted');
  }

  async #onBack(source: SourceOpened): Promise<void> {
    // A lane whose stream outlived the other's has to let go of it: the source ended that session.
    await this.#lanes.detachSource();
    if (this.phase !== 'interrupted' && this.phase !== 'held') return;
    this.#error = undefined;
    this.#lanes.both({ type: 'reopened', source });
    if (this.phase === 'interrupted') this.enter(this.#o.continuity.prefetchPaused ? 'paused' : 'filling');
  }

  // ── The ends ────────────────────────────────────────────────────────────────────────────────────────────────────

  async #finish(): Promise<void> {
    const { vm } = this.#vmm;
    if (!this.may('finishing') || !vm?.ledger.isWhole()) return;
    this.#filledAtMs = Date.now();
    this.enter('finishing');
    this.#source.stop();
    const { exited, refused } = await (this.#lanes.attached ? this.#lanes.unregister() : vm.unregister());
    if (this.phase !== 'finishing') return;
    if (exited) {
      this.#onVmmGone();
      return;
    }
    if (refused !== undefined)
      throw new PagewakeError(ErrorReason.INTERNAL, `the kernel refused to unregister: ${refused}`);
    this.#unregistered = true;
    vm.ledger.stage = STAGE.givenBack;
    if (vm.choice.mode === 'eager') this.#vmm.send({ type: 'ready' });
    this.#vmm.send({ type: 'done' });
    await this.#complete(vm.zeroAtOpen);
  }

  async #complete(pagesZero: number): Promise<void> {
    this.#error = await this.#source.complete({ ...this.#lanes.pages, pagesZero });
    // Before anybody hears of it: an agent that is killed now has nothing left to do.
    this.#o.continuity.end(endedOf({ ...this.snapshot(), phase: 'completed' }));
    this.enter('completed');
    this.#o.log.info('completed');
    await this.#release();
  }

  /** The agent before this one had every page in place: what is left is to say so, also where the source is gone or knows it. */
  async #finishAtOnce(vm: OpenedFor): Promise<void> {
    await this.#source.openIfThere(vm);
    if (this.over) return;
    this.enter('filling');
    await this.#finish();
  }

  /** It had even told the VMM, which has no need of us any more. */
  async #finishAlone(): Promise<void> {
    const { layout } = this.#o.continuity;
    if (this.phase !== 'awaiting-vmm' || !layout) return;
    this.#unregistered = true;
    for (const phase of ['opening', 'filling', 'finishing'] as const) this.enter(phase);
    await this.#source.openIfThere({ layout, noteZero: () => undefined });
    await this.#complete(0);
  }

  #onVmmGone(): void {
    this.#fail(new PagewakeError(ErrorReason.VMM_EXITED, 'the VMM exited before its memory was whole'));
  }

  #fail(error: PagewakeError): void {
    if (this.over) return;
    if (this.#unregistered) {
      this.#o.log.warn({ reason: reasonName(error.reason) }, `after the VM was whole: ${error.message}`);
      return;
    }
    this.#o.log.error({ reason: reasonName(error.reason), phase: this.phase }, error.message);
    this.#giveUp('failed', error);
  }

  #giveUp(phase: 'failed' | 'cancelled', error: PagewakeError): void {
    this.#error = error;
    this.#filledAtMs ??= Date.now();
    this.enter(phase);
    this.#source.stop();
    this.#vmm.stopListening();
    if (this.#atStake) this.#o.continuity.giveUp(error);
    this.#guard(this.#abandon(error));
  }

  /**
   * Nobody is left waiting: what has not come becomes SIGBUS before anything is closed, and the VMM is told. Done here and not on a lane, which may be
   * what failed. Where no guest ran and nothing came the memory is as it was handed over, and is left so.
   */
  async #abandon(error: PagewakeError): Promise<void> {
    try {
      await this.#lanes.terminate();
      const { vm, connected } = this.#vmm;
      if (this.#atStake && vm?.choice.trapped) await poisonOrKill(vm, connected, this.#o.log);
      const again = this.#atStake ? {} : ({ again: true } as const);
      this.#vmm.send({ type: 'failed', reason: reasonName(error.reason), message: error.message, ...again });
    } finally {
      await this.#release();
    }
  }

  #release(): Promise<void> {
    return (this.#ending ??= this.#releaseOnce());
  }

  async #releaseOnce(): Promise<void> {
    await this.#lanes.terminate();
    this.#vmm.close();
    this.#source.close();
    if (this.over) this.#o.continuity.end(endedOf(this.snapshot()));
    this.#o.continuity.stop();
  }

  #guard(step: Promise<void>): void {
    step.catch((error: unknown) => this.#failed(error));
  }

  /** Whatever an asynchronous step threw ends the migration, typed where it is typed. */
  #failed(error: unknown): void {
    // After the end a step that was still waiting for a lane is let go; there is nothing to tell.
    if (this.over) return;
    if (error instanceof PagewakeError) return this.#fail(error);
    this.#o.log.error({ err: error }, 'a bug');
    this.#fail(new PagewakeError(ErrorReason.INTERNAL, error instanceof Error ? error.message : String(error)));
  }
}
