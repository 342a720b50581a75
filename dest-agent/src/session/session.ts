/**
 * One migration on the destination, from the call that prepares it to the ledger that is full. Owns the order of things; the lanes own the pages.
 */
import { randomBytes } from 'node:crypto';
import { closeSync } from 'node:fs';
import type { HandshakeError, VmmMessage } from '@pagewake/core';
import { isRecoverable } from '../adapters/page-source.ts';
import { SourceSession } from '../adapters/source-session.ts';
import { linkOptions } from '../adapters/link-options.ts';
import { ErrorReason, PagewakeError, reasonName } from '../kit.ts';
import { BULK_COUNTERS, FAULT_COUNTERS } from '../lanes/counters.ts';
import type { FromLane, LaneError } from '../lanes/messages.ts';
import { AdmittedVm } from './admission.ts';
import { Alarms } from './alarms.ts';
import { poisonOrKill } from './ending.ts';
import { Lanes } from './lanes.ts';
import { PhaseMachine } from './phase-machine.ts';
import { ProcessEnd } from './process-end.ts';
import { Reopener } from './reopener.ts';
import type { SessionOptions } from './session-options.ts';
import { NO_LEDGER, readAll, type SessionSnapshot } from './snapshot.ts';
import { VmmLink, type ReceivedOffer } from './vmm-link.ts';
import { laneOrderOf, resolvedAnswer } from './vmm-orders.ts';

export class MigrationSession extends PhaseMachine {
  readonly migrationId: string;
  readonly vmId: string;
  readonly #o: SessionOptions;
  readonly #lanes: Lanes;
  readonly #source: SourceSession;
  readonly #vmm: VmmLink;
  readonly #reopener: Reopener;
  readonly #alarms: Alarms;
  readonly #startedAtMs = Date.now();
  #prefetchPaused = false;
  #error: PagewakeError | undefined;
  #vm: AdmittedVm | undefined;
  #vmmEnd: ProcessEnd | undefined;
  #session: Uint8Array = new Uint8Array(0);
  #fillingSinceMs: number | undefined;
  #filledAtMs: number | undefined;
  #linkLosses = 0;
  #lostEarly: PagewakeError | undefined;
  /** The kernel has the ranges back: the VM is whole, whatever happens to anybody from here on. */
  #unregistered = false;
  #ending: Promise<void> | undefined;

  constructor(options: SessionOptions) {
    super();
    this.migrationId = options.migrationId;
    this.vmId = options.vmId;
    this.#o = options;
    this.#alarms = new Alarms(options.log);
    this.#source = new SourceSession(options.sourceAddress, linkOptions(options.credentials), {
      ...options,
      destinationId: randomBytes(16).toString('hex'),
    });
    this.#lanes = new Lanes({
      sourceAddress: options.sourceAddress,
      credentials: options.credentials,
      traceRatio: options.trace.sampled ? options.traceRatio : 0,
      onMessage: (message) => this.#onLane(message),
      onCrash: (error) => {
        options.log.error({ err: error }, 'a lane crashed');
        this.#fail(new PagewakeError(ErrorReason.INTERNAL, `a lane of the agent crashed: ${error.message}`));
      },
    });
    this.#vmm = new VmmLink({
      onOffer: (received) => this.#guard(this.#open(received)),
      onMessage: (message) => this.#onVmmMessage(message),
      onBadPeer: (error) => this.#onBadPeer(error),
      onClose: () => this.#onVmmClosed(),
    });
    this.#reopener = new Reopener(
      () => this.#reopen().catch((error: unknown) => this.#failed(error)),
      () => this.phase === 'interrupted',
    );
  }

  // ── What the orchestrator asks for ──────────────────────────────────────────────────────────────────────────────

  /**
   * Starts the lanes, reaches the source, listens for the VMM.
   * @throws PagewakeError what stood in the way; the session is failed then
   */
  async prepare(): Promise<void> {
    const over = this.untilOver(() => this.#error ?? new PagewakeError(ErrorReason.CANCELLED, 'cancelled'));
    await Promise.race([this.#lanes.started(), over]);
    try {
      this.#vmm.listen(this.#o.vmmSocket);
    } catch (error) {
      this.#failed(error);
      throw error;
    }
    this.enter('awaiting-vmm');
  }

  /** While the source is lost this says only what holds once it is back. */
  pausePrefetch(): void {
    if (this.phase !== 'interrupted' && this.phase !== 'paused' && this.phase !== 'filling')
      throw this.wrongPhase('paused');
    this.#prefetchPaused = true;
    this.#lanes.bulk.post({ type: 'pause' });
    if (this.phase === 'filling') this.enter('paused');
  }

  resume(): void {
    if (this.phase !== 'interrupted' && this.phase !== 'paused' && this.phase !== 'filling')
      throw this.wrongPhase('resumed');
    this.#prefetchPaused = false;
    this.#lanes.bulk.post({ type: 'resume' });
    if (this.phase === 'interrupted') this.#reopener.now();
    else this.enter('filling');
  }

  /** @param force also where a guest may run on pages that have come: it is lost then */
  cancel(force: boolean): void {
    if (!this.may('cancelled')) throw this.wrongPhase('cancelled');
    const harmless = this.phase === 'preparing' || this.phase === 'awaiting-vmm';
    if (!harmless && !force)
      throw new PagewakeError(
        ErrorReason.WRONG_PHASE,
        `the guest may be running on this host already and is lost if its migration is cancelled while ${this.phase}; use force to do it all the same`,
        { phase: this.phase },
      );
    this.#giveUp('cancelled', new PagewakeError(ErrorReason.CANCELLED, 'cancelled by the orchestrator'));
  }

  /** The agent ends. A guest that is left without pages waits and never reads zeros: its VMM holds the userfaultfd too. */
  leave(): Promise<void> {
    this.#reopener.stop();
    return this.#release();
  }

  snapshot(): SessionSnapshot {
    const until = this.#filledAtMs ?? Date.now();
    return {
      migrationId: this.#o.migrationId,
      vmId: this.#o.vmId,
      phase: this.phase,
      error: this.#error,
      tier: this.#vm?.choice.tier,
      mode: this.#vm?.choice.mode,
      modeReason: this.#vm?.choice.reason ?? '',
      vmmSocket: this.#o.vmmSocket,
      startedAtMs: this.#startedAtMs,
      fillingMs: this.#fillingSinceMs === undefined ? 0 : until - this.#fillingSinceMs,
      linkLosses: this.#linkLosses,
      traceId: this.#o.trace.traceId,
      ledger: this.#vm?.totals() ?? NO_LEDGER,
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
    const vm = new AdmittedVm(received, this.#o.vmId, this.#o.wantedMode);
    this.#vm = vm;
    const { tier, mode, reason } = vm.choice;
    this.#o.log.info({ tier, mode, reason }, 'memory handed over');
    this.#session = await this.#source.open(vm.layout, (first, count) => vm.noteZero(first, count));
    if (this.over) return;
    this.#fillingSinceMs = Date.now();
    await this.#lanes.attach({
      memory: vm.attachment,
      descriptors: () => vm.duplicateDescriptors(),
      source: { session: this.#session, bulkPort: 0 },
      guestRuns: received.offer.dialect === 'firecracker',
      vcpuThreads: vm.vcpuThreads,
      trace: this.#o.trace,
    });
    if (this.over) return;
    this.#lanes.both({ type: 'go' });
    this.enter('filling');
    if (mode === 'post-copy') this.#vmm.send({ type: 'ready' });
    if (this.#lostEarly) this.#onLost(this.#lostEarly);
    // A VM whose memory is all zeros has nothing to fetch; and a lane may have been whole before it was heard.
    await this.#finish();
  }

  #onVmmMessage(message: VmmMessage): void {
    const order = this.#vm && laneOrderOf(message, this.#vm.layout);
    if (order) this.#lanes.fault.post(order);
    // Ignored it would leave a vCPU waiting for its answer.
    else
      this.#fail(
        new PagewakeError(
          ErrorReason.BAD_HANDSHAKE,
          `${message.type}: ${message.offset} is no page that the VMM handed over`,
        ),
      );
  }

  // ── What the lanes say ──────────────────────────────────────────────────────────────────────────────────────────

  #onLane(message: FromLane): void {
    switch (message.type) {
      case 'whole':
        this.#guard(this.#finish());
        return;
      case 'lost':
        this.#onLost(fromLane(message.error));
        return;
      case 'fatal':
        this.#fail(fromLane(message.error));
        return;
      case 'vmm-exited':
        this.#onVmmGone();
        return;
      case 'stage2-resolved': {
        const answer = this.#vm && resolvedAnswer(message.id, message.ledgerPage, this.#vm.layout);
        if (answer) this.#vmm.send(answer);
        return;
      }
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

  #onLost(error: PagewakeError): void {
    // One lane may lose its stream before the other has attached, and says so only once.
    if (this.phase === 'opening') this.#lostEarly = error;
    if (!this.may('interrupted')) return;
    this.#linkLosses++;
    this.#error = new PagewakeError(ErrorReason.SOURCE_LOST, `the source is lost: ${error.message}`);
    this.#o.log.warn({ error: error.message }, 'the link to the source is lost; faults wait, trying again');
    this.enter('interrupted');
    this.#reopener.start();
  }

  /** One attempt. True: the source is back. */
  async #reopen(): Promise<boolean> {
    const layout = this.#vm?.layout;
    if (!layout) return false;
    try {
      // Zero runs are the same as before: memory of a paused VM does not change.
      this.#session = await this.#source.open(layout, () => undefined);
    } catch (error) {
      if (!(error instanceof PagewakeError)) throw error;
      if (!isRecoverable(error)) this.#fail(error);
      else this.#o.log.info({ error: error.message }, 'the source does not answer yet');
      return false;
    }
    // A lane whose stream outlived the other's has to let go of it: the source ended that session.
    if (this.phase === 'interrupted') await this.#lanes.detachSource();
    if (this.phase !== 'interrupted') return true;
    this.#error = undefined;
    this.#lanes.both({ type: 'reopened', source: { session: this.#session, bulkPort: 0 } });
    this.enter(this.#prefetchPaused ? 'paused' : 'filling');
    return true;
  }

  // ── The ends ────────────────────────────────────────────────────────────────────────────────────────────────────

  async #finish(): Promise<void> {
    const vm = this.#vm;
    if (!this.may('finishing') || !vm?.ledger.isWhole()) return;
    this.#filledAtMs = Date.now();
    this.enter('finishing');
    this.#reopener.stop();
    await this.#lanes.detachSource();
    const unregistered = this.#lanes.fault.next('unregistered');
    this.#lanes.fault.post({ type: 'unregister' });
    const { exited, refused } = await unregistered;
    if (this.phase !== 'finishing') return;
    if (exited) {
      this.#onVmmGone();
      return;
    }
    if (refused !== undefined)
      throw new PagewakeError(ErrorReason.INTERNAL, `the kernel refused to unregister: ${refused}`);
    this.#unregistered = true;
    if (vm.choice.mode === 'eager') this.#vmm.send({ type: 'ready' });
    this.#vmm.send({ type: 'done' });
    this.#error = await this.#tellSource(vm);
    this.enter('completed');
    this.#o.log.info('completed');
    await this.#release();
  }

  /** The VM is whole whatever the source says to this; a source that cannot be told keeps its memory until it is released. */
  async #tellSource(vm: AdmittedVm): Promise<PagewakeError | undefined> {
    const error = await this.#source.complete(this.#session, {
      pagesByFault: this.#lanes.faultCounters.get('pagesInstalled'),
      pagesByPrefetch: this.#lanes.bulkCounters.get('pagesInstalled'),
      pagesZero: vm.zeroAtOpen,
    });
    if (error)
      this.#o.log.warn(
        { error: error.message },
        'the VM is whole, but the source could not be told; release it by hand',
      );
    return error;
  }

  #onBadPeer(error: HandshakeError): void {
    this.#o.log.warn({ error: error.message }, 'a peer on the VMM socket was refused');
    if (this.phase !== 'awaiting-vmm') this.#fail(new PagewakeError(ErrorReason.BAD_HANDSHAKE, error.message));
  }

  #onVmmClosed(): void {
    if (this.over) return;
    const pid = this.#vm?.received.pid ?? 0;
    if (pid === 0) {
      this.#onVmmGone();
      return;
    }
    this.#vmmEnd ??= new ProcessEnd(
      pid,
      () => this.#onVmmGone(),
      () => this.#o.log.warn({ pid }, 'the VMM closed its channel but lives; its faults are served on'),
    );
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
    this.#reopener.stop();
    this.#vmm.stopListening();
    this.#guard(this.#abandon(error));
  }

  /**
   * Nobody is left waiting: what has not come becomes SIGBUS before anything is closed, and the VMM is told. Done here and not on a lane, which may be
   * what failed.
   */
  async #abandon(error: PagewakeError): Promise<void> {
    try {
      await this.#lanes.terminate();
      if (this.#vm?.choice.trapped) await poisonOrKill(this.#vm, this.#vmm.connected, this.#o.log);
      this.#vmm.send({ type: 'failed', reason: reasonName(error.reason), message: error.message });
    } finally {
      await this.#release();
    }
  }

  #release(): Promise<void> {
    this.#ending ??= this.#releaseOnce();
    return this.#ending;
  }

  async #releaseOnce(): Promise<void> {
    this.#vmmEnd?.stop();
    await this.#lanes.terminate();
    this.#vmm.close();
    this.#source.close();
    this.#vm?.close();
  }

  #guard(step: Promise<void>): void {
    step.catch((error: unknown) => this.#failed(error));
  }

  /** Whatever an asynchronous step threw ends the migration, typed where it is typed. */
  #failed(error: unknown): false {
    if (error instanceof PagewakeError) {
      this.#fail(error);
      return false;
    }
    // After the end a step that was still waiting for a lane is let go; there is nothing to tell.
    if (this.over) return false;
    this.#o.log.error({ err: error }, 'a bug');
    this.#fail(new PagewakeError(ErrorReason.INTERNAL, error instanceof Error ? error.message : String(error)));
    return false;
  }
}

const fromLane = (error: LaneError): PagewakeError => new PagewakeError(error.reason, error.message, error.metadata);
