/** The VMM as one migration has it: awaited, its memory taken, listened to, and noticed when it ends. */
import type { AgentMessage, ResolvedPage, VmmMessage } from '@pagewake/core';
import { HandshakeError } from '@pagewake/core/messages';
import { ErrorReason, PagewakeError, type Logger } from '../kit.ts';
import type { Stage2Page, ToLane } from '../lanes/messages.ts';
import { AdmittedVm, type Wanted } from './admission.ts';
import { ProcessEnd } from './process-end.ts';
import { VmmLink, type ReceivedOffer } from './vmm-link.ts';
import { laneOrderOf, resolvedPage } from './vmm-orders.ts';

export interface VmmSideEvents {
  /** A VMM hands its memory over: `admit` takes it, or somebody closes its descriptors. */
  onOffer(received: ReceivedOffer): void;
  /** What it asks of the fault lane. */
  onOrder(order: ToLane): void;
  /** Its process is gone. */
  onGone(): void;
  /** What it says makes no sense. */
  onFailed(error: PagewakeError): void;
}

export class VmmSide {
  readonly #wanted: Wanted;
  readonly #log: Logger;
  readonly #events: VmmSideEvents;
  readonly #link: VmmLink;
  #vm: AdmittedVm | undefined;
  #end: ProcessEnd | undefined;
  #offered = false;
  /** Answers of this turn of the loop: one message has them all. */
  #answers: ResolvedPage[] = [];
  #closed = false;

  constructor(wanted: Wanted, log: Logger, events: VmmSideEvents) {
    this.#wanted = wanted;
    this.#log = log;
    this.#events = events;
    this.#link = new VmmLink({
      onCandidate: (candidate) => wanted.continuity.admit(candidate),
      onOffer: (received) => {
        this.#offered = true;
        events.onOffer(received);
      },
      onMessage: (message) => this.#onMessage(message),
      onBadPeer: (error) => this.#onBadPeer(error),
      onClose: () => this.#onClose(),
    });
  }

  /** Its memory, once admitted. */
  get vm(): AdmittedVm | undefined {
    return this.#vm;
  }

  /** Its channel is open, so its pid is still its own. */
  get connected(): boolean {
    return this.#link.connected;
  }

  /** @throws PagewakeError INVALID_ARGUMENT where the path cannot be listened on */
  listen(path: string): void {
    this.#link.listen(path);
  }

  /** @throws PagewakeError why this memory cannot be filled; its descriptors are closed then */
  admit(received: ReceivedOffer): AdmittedVm {
    const vm = new AdmittedVm(received, this.#wanted);
    this.#vm = vm;
    const { tier, mode, reason } = vm.choice;
    this.#log.info({ tier, mode, reason }, 'memory handed over');
    if (vm.discardedBytes > 0)
      this.#log.info({ bytes: vm.discardedBytes }, 'what the VMM had in its memory files is thrown away');
    return vm;
  }

  send(message: AgentMessage): void {
    this.#sayAnswers();
    this.#link.send(message);
  }

  /** Stage-2 faults that it asked about are resolved. */
  answerResolved(pages: readonly Stage2Page[]): void {
    if (this.#answers.length === 0) setImmediate(() => this.#sayAnswers());
    for (const page of pages) {
      const answer = this.#vm && resolvedPage(page, this.#vm);
      if (answer) this.#answers.push(answer);
    }
  }

  #sayAnswers(): void {
    const pages = this.#answers;
    this.#answers = [];
    if (pages.length > 0) this.#link.send({ type: 'all_resolved', pages });
  }

  stopListening(): void {
    this.#link.stopListening();
  }

  /** Nothing is asked of its memory any more. A VMM that was not told that it is whole may still ask, and is answered until it goes. */
  close(): void {
    this.#closed = true;
    this.#end?.stop();
    this.#link.letGo();
    this.#vm?.close();
  }

  /** Who was let go and is still answered is answered no more. */
  hangUp(): void {
    this.#link.hangUp();
  }

  #onMessage(message: VmmMessage): void {
    if (!this.#vm) throw new HandshakeError(`${message.type}: the VMM's memory was not taken`);
    this.#events.onOrder(laneOrderOf(message, this.#vm));
  }

  #onBadPeer(error: HandshakeError): void {
    this.#log.warn({ error: error.message }, 'a peer on the VMM socket was refused');
    if (this.#offered) this.#refuse(error.message);
  }

  #refuse(message: string): void {
    this.#events.onFailed(new PagewakeError(ErrorReason.BAD_HANDSHAKE, message));
  }

  #onClose(): void {
    if (this.#closed) return;
    const pid = this.#vm?.received.pid ?? 0;
    if (pid === 0) {
      this.#events.onGone();
      return;
    }
    this.#end ??= new ProcessEnd(
      pid,
      () => this.#events.onGone(),
      () => this.#log.warn({ pid }, 'the VMM closed its channel but lives; its faults are served on'),
    );
  }
}
