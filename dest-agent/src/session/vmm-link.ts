/** The VMM channel: listens for one VMM, reads its handshake, then passes messages both ways (docs/protocol.md). */
import { closeSync } from 'node:fs';
import { StringDecoder } from 'node:string_decoder';
import {
  endOfJson,
  HandshakeError,
  LineSplitter,
  parseHandshake,
  parseVmmMessage,
  type AgentMessage,
  type VmmMessage,
  type VmmOffer,
} from '@pagewake/core/messages';
import { listenForVmm, type VmmConnection, type VmmListener } from '../adapters/vmm-socket.ts';
import { ErrorReason, PagewakeError } from '../kit.ts';

const HANDSHAKE_TIMEOUT_MS = 10_000;
/** A region is about 120 bytes of JSON; a thousand of them still fit. */
const MAX_HANDSHAKE_BYTES = 256 * 1024;
const MAX_LINE_BYTES = 64 * 1024;

export interface ReceivedOffer {
  readonly offer: VmmOffer;
  /** In the order of `offer.descriptors`. The receiver owns them. */
  readonly descriptors: readonly number[];
  readonly pid: number;
}

export interface VmmEvents {
  /** Throws HandshakeError where this is not whom we wait for: it is sent away with those words, and the next one may come. */
  onCandidate?(candidate: ReceivedOffer): void;
  onOffer(received: ReceivedOffer): void;
  onMessage(message: VmmMessage): void;
  /** What the VMM sent could not be understood; the connection is closed. */
  onBadPeer(error: HandshakeError): void;
  onClose(): void;
}

export class VmmLink {
  readonly #events: VmmEvents;
  readonly #handshakeTimeoutMs: number;
  #listener: VmmListener | undefined;
  #vmm: VmmConnection | undefined;
  #dialect: VmmOffer['dialect'] | undefined;
  #early: { text: string; descriptors: number[] } = { text: '', descriptors: [] };
  #lines = new LineSplitter(MAX_LINE_BYTES);
  /** A read may end within a character. */
  #decoder = new StringDecoder('utf8');
  #timer: NodeJS.Timeout | undefined;

  /** @param handshakeTimeoutMs for a peer that connects and does not say what it is */
  constructor(events: VmmEvents, handshakeTimeoutMs = HANDSHAKE_TIMEOUT_MS) {
    this.#events = events;
    this.#handshakeTimeoutMs = handshakeTimeoutMs;
  }

  /** @throws PagewakeError INVALID_ARGUMENT where the path cannot be listened on */
  listen(path: string): void {
    try {
      this.#listener = listenForVmm(path, (connection) => this.#accept(connection));
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      throw new PagewakeError(ErrorReason.INVALID_ARGUMENT, `cannot listen for the VMM on ${path}: ${why}`);
    }
  }

  /** Nothing where the VMM has closed its channel: whoever ends or finishes such a migration has nobody to tell. */
  send(message: AgentMessage): void {
    if (this.#dialect !== 'pagewake/1' || this.#vmm?.closed !== false) return;
    try {
      this.#vmm.send(Buffer.from(`${JSON.stringify(message)}\n`), []);
    } catch (error) {
      // ENOBUFS: it asks and never reads. That ends its own migration and nobody else's.
      const why = error instanceof Error ? error.message : String(error);
      this.#vmm.close();
      this.#events.onBadPeer(new HandshakeError(`the VMM does not read its channel: ${why}`));
    }
  }

  /** A VMM is there, and its channel is open. */
  get connected(): boolean {
    return this.#vmm?.closed === false;
  }

  /** No VMM may come any more; the one that is there stays. */
  stopListening(): void {
    clearTimeout(this.#timer);
    this.#listener?.close();
  }

  close(): void {
    this.stopListening();
    this.#vmm?.close();
    this.#discardDescriptors();
  }

  #accept(connection: VmmConnection): void {
    if (this.#vmm) {
      const refusal: AgentMessage = {
        type: 'failed',
        reason: 'BAD_HANDSHAKE',
        message: 'another VMM is on this socket already; one that says nothing is sent away after a while',
        again: true,
      };
      connection.onClose(() => undefined);
      connection.send(Buffer.from(`${JSON.stringify(refusal)}\n`), []);
      connection.close();
      return;
    }
    this.#vmm = connection;
    this.#decoder = new StringDecoder('utf8');
    this.#timer = setTimeout(() => {
      this.#refuse(new HandshakeError(`no whole handshake within ${this.#handshakeTimeoutMs / 1000} s`));
    }, this.#handshakeTimeoutMs);
    connection.onData((data, descriptors) => this.#onData(data, descriptors));
    connection.onClose(() => {
      // A peer that was refused may close late, when the next one is here.
      if (this.#vmm === connection) this.#onClose();
    });
  }

  #onData(data: Buffer, descriptors: readonly number[]): void {
    try {
      if (this.#dialect === undefined) this.#onHandshakeData(data, descriptors);
      else {
        for (const fd of descriptors) closeSync(fd);
        this.#onLines(this.#decoder.write(data));
      }
    } catch (error) {
      if (!(error instanceof HandshakeError)) throw error;
      this.#refuse(error);
    }
  }

  #onHandshakeData(data: Buffer, descriptors: readonly number[]): void {
    this.#early.text += this.#decoder.write(data);
    this.#early.descriptors.push(...descriptors);
    const { text } = this.#early;
    if (text.length > MAX_HANDSHAKE_BYTES)
      throw new HandshakeError(`the handshake is longer than ${MAX_HANDSHAKE_BYTES} bytes`);
    const first = text.trimStart()[0];
    if (first !== undefined && first !== '[' && first !== '{')
      throw new HandshakeError(`the handshake is not JSON: it begins with ${JSON.stringify(text.slice(0, 40))}`);
    // Our own ends with a newline; Firecracker's array ends with itself.
    const end = first === '[' ? (endOfJson(text) ?? -1) : text.indexOf('\n');
    if (end < 0) return;
    const offer = parseHandshake(text.slice(0, end), this.#early.descriptors.length);
    const received = { offer, descriptors: this.#early.descriptors, pid: this.#vmm?.peer().pid ?? 0 };
    this.#events.onCandidate?.(received);
    clearTimeout(this.#timer);
    this.#dialect = offer.dialect;
    this.#early = { text: '', descriptors: [] };
    this.#events.onOffer(received);
    this.#onLines(text.slice(end + 1));
  }

  #onLines(text: string): void {
    // Firecracker says nothing after its handshake on the main branch; what it may say one day is not for us.
    if (this.#dialect === 'firecracker') return;
    for (const line of this.#lines.push(text)) this.#events.onMessage(parseVmmMessage(line));
  }

  /** A peer that does not speak the protocol is told why, and the next one may try. */
  #refuse(error: HandshakeError): void {
    clearTimeout(this.#timer);
    const vmm = this.#vmm;
    const message: AgentMessage = { type: 'failed', reason: 'BAD_HANDSHAKE', message: error.message };
    vmm?.send(Buffer.from(`${JSON.stringify(message)}\n`), []);
    this.#discardDescriptors();
    if (this.#dialect === undefined) this.#vmm = undefined;
    this.#events.onBadPeer(error);
    vmm?.close();
  }

  #discardDescriptors(): void {
    for (const fd of this.#early.descriptors) closeSync(fd);
    this.#early = { text: '', descriptors: [] };
  }

  #onClose(): void {
    clearTimeout(this.#timer);
    if (this.#dialect === undefined) {
      const spoke = this.#vmm !== undefined;
      this.#discardDescriptors();
      this.#vmm = undefined;
      if (spoke) this.#events.onBadPeer(new HandshakeError('the VMM closed its socket before the handshake was whole'));
      return;
    }
    this.#events.onClose();
  }
}
