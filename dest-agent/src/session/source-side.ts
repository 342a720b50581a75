/** The source as one migration has it: opened, waited for, lost and opened again, told the end. */
import { setTimeout as sleep } from 'node:timers/promises';
import { isRecoverable } from '../adapters/page-source.ts';
import type { OnZero, SourceOpening } from '../adapters/source-opening.ts';
import type { PageTotals, SourceSession } from '../adapters/source-session.ts';
import { PagewakeError, type Logger } from '../kit.ts';
import type { SourceOpened } from '../lanes/messages.ts';
import type { AdmittedVm } from './admission.ts';
import { Reopener } from './reopener.ts';

export interface SourceEvents {
  /** Its VM stands still and its memory is final. Once, and only where `awaitFinal` was asked for it. */
  onFinal(): void;
  /** The link is gone; it is opened again until that succeeds or `stop` is called. */
  onLost(error: PagewakeError): void;
  /** It is opened again: resolves once the lanes have it. */
  onBack(source: SourceOpened): Promise<void>;
  /** What it refused, or a bug: the migration is over. */
  onFailed(error: unknown): void;
}

const noZeros: OnZero = () => undefined;
const TRY_AGAIN_MS = 500;
const REACH_MS = 10_000;

/** What the source is opened for: the pages' geometry, and who notes which of them are zero. */
export type OpenedFor = Pick<AdmittedVm, 'layout' | 'noteZero'>;

export class SourceSide {
  readonly #session: SourceSession;
  readonly #log: Logger;
  readonly #events: SourceEvents;
  readonly #reopener: Reopener;
  #vm: OpenedFor | undefined;
  #opening: SourceOpening | undefined;
  #opened: SourceOpened = { session: new Uint8Array(0), bulkPort: 0, faultPort: 0 };
  #final = false;
  #lost = false;
  #stopped = false;

  constructor(session: SourceSession, log: Logger, events: SourceEvents) {
    this.#session = session;
    this.#log = log;
    this.#events = events;
    this.#reopener = new Reopener(
      () => this.#tryAgain(),
      () => this.#lost && !this.#stopped,
    );
  }

  /**
   * Long before any guest stops.
   * @param patient not now: a guest waits already, and the source is opened as often as it takes
   * @throws PagewakeError that it cannot be reached
   */
  async reach(patient: boolean): Promise<void> {
    try {
      if (!patient) await this.#session.check(REACH_MS);
    } catch (error) {
      this.#events.onFailed(error);
      throw error;
    }
  }

  /**
   * Opens it for the first time. Where its VM stands still already this waits until the memory is final, else not: `awaitFinal` does.
   * @throws PagewakeError
   */
  async open(vm: OpenedFor): Promise<SourceOpened> {
    this.#vm = vm;
    const opening = await this.#openOnce(vm);
    if (opening.paused) await opening.final;
    return this.#opened;
  }

  /**
   * The same for a guest that waits already: as often as it takes.
   * @throws PagewakeError what the source refused, or that nobody waits any more
   */
  async openPatiently(vm: OpenedFor): Promise<SourceOpened> {
    for (;;) {
      try {
        return await this.open(vm);
      } catch (error) {
        if (this.#stopped || !(error instanceof PagewakeError) || !isRecoverable(error)) throw error;
        this.#log.warn({ error: error.message }, 'the source does not answer; faults wait, trying again');
        await sleep(TRY_AGAIN_MS);
      }
    }
  }

  /** The VM is known to stand still. */
  get paused(): boolean {
    return this.#final || (this.#opening?.paused ?? false);
  }

  /** Has `onFinal` called once the memory is final; losses until then are tried again. */
  awaitFinal(): void {
    if (this.#opening) void this.#watch(this.#opening);
  }

  /** A lane says that its stream is gone. One loss counts once, however many notice it. */
  lost(error: PagewakeError): void {
    if (this.#lost || this.#stopped) return;
    this.#lost = true;
    this.#close();
    this.#events.onLost(error);
    this.#reopener.start();
  }

  /** The orchestrator says that it is worth a try. */
  tryNow(): void {
    if (this.#lost) this.#reopener.now();
  }

  /** Nothing is opened again from here on. */
  stop(): void {
    this.#stopped = true;
    this.#reopener.stop();
  }

  /** The VM is whole whatever the source says to this; a source that cannot be told keeps its memory until it is released. */
  async complete(totals: PageTotals): Promise<PagewakeError | undefined> {
    const error = await this.#session.complete(this.#opened.session, totals);
    if (error)
      this.#log.warn({ error: error.message }, 'the VM is whole, but the source could not be told; release it by hand');
    return error;
  }

  close(): void {
    this.stop();
    this.#close();
    this.#session.close();
  }

  /** The same where nothing hangs on it any more but that the source may be told so. */
  async openIfThere(vm: OpenedFor): Promise<void> {
    try {
      await this.open(vm);
    } catch (error) {
      if (!(error instanceof PagewakeError)) throw error;
      this.#log.warn({ error: error.message }, 'the source cannot be opened, and need not be');
    }
  }

  async #openOnce(vm: OpenedFor): Promise<SourceOpening> {
    // Once final the memory does not change: the zeros are the same, and a source whose VM runs has broken its word.
    const onZero: OnZero = this.#final ? noZeros : (first, count) => vm.noteZero(first, count);
    const opening = await this.#session.open(vm.layout, onZero, !this.#final);
    this.#opening = opening;
    const { session, bulkPort, faultPort } = opening;
    this.#opened = { session, bulkPort, faultPort };
    return opening;
  }

  async #watch(opening: SourceOpening): Promise<void> {
    try {
      await opening.final;
    } catch (error) {
      // Closed by us: another has taken its place, or nobody waits any more.
      if (this.#opening !== opening || this.#stopped) return;
      if (error instanceof PagewakeError && isRecoverable(error)) this.lost(error);
      else this.#events.onFailed(error);
      return;
    }
    if (this.#opening !== opening || this.#stopped || this.#final) return;
    this.#final = true;
    this.#events.onFinal();
  }

  /** One attempt. True: the source is back, or nobody wants it any more. */
  async #tryAgain(): Promise<boolean> {
    const vm = this.#vm;
    if (!vm) return false;
    try {
      const opening = await this.#openOnce(vm);
      if (this.#final) await opening.final;
      if (this.#stopped) return true;
      await this.#events.onBack(this.#opened);
      this.#lost = false;
      void this.#watch(opening);
      return true;
    } catch (error) {
      this.#close();
      if (!(error instanceof PagewakeError) || !isRecoverable(error)) this.#events.onFailed(error);
      else this.#log.info({ error: error.message }, 'the source does not answer yet');
      return false;
    }
  }

  #close(): void {
    const opening = this.#opening;
    this.#opening = undefined;
    opening?.close();
  }
}
