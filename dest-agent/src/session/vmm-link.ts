/** The VMM channel: listens for one VMM, reads its handshake, then passes messages both ways (docs/protocol.md). */
import { closeSync } from 'node:fs';
import { StringDecoder } from 'node:string_decoder';
import {
  codecFor,
  endOfJson,
  HandshakeError,
  parseHandshake,
  type AgentMessage,
  type VmmCodec,
  type VmmMessage,
  type VmmOffer,
} from '@pagewake/core/messages';
import { listenForVmm, type VmmConnection, type VmmListener } from '../adapters/vmm-socket.ts';
import { ErrorReason, PagewakeError } from '../kit.ts';

const HANDSHAKE_TIMEOUT_MS = 10_000;
/** A region is about 120 bytes of JSON; a thousand of them still fit. */
const MAX_HANDSHAKE_BYTES = 256 * 1024;

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

/** A handshake whose JSON is read. */
interface Opening {
  readonly received: ReceivedOffer;
  readonly codec: VmmCodec;
}

export class VmmLink {
  readonly #events: VmmEvents;
  readonly #handshakeTimeoutMs: number;
  #listener: VmmListener | undefined;
  #vmm: VmmConnection | undefined;
  #opening: Opening | undefined;
  /** Undefined until the handshake is whole. */
  #codec: VmmCodec | undefined;
  #early: { text: string; descriptors: number[] } = { text: '', descriptors: [] };
  /** What came made no sense: nothing more is heard, and the link stays until whoever has it closes it. */
  #deaf = false;
  #mute = false;
  /** Nobody listens to this link's events any more. */
  #alone = false;
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
    if (this.#codec) this.#say(this.#codec.write(message));
  }

  #say(text: string): void {
    if (text === '' || this.#mute || this.#vmm?.closed !== false) return;
    try {
      this.#vmm.send(Buffer.from(text), []);
    } catch (error) {
      // ENOBUFS: it asks and never reads. That ends its own migration and nobody else's.
      const why = error instanceof Error ? error.message : String(error);
      this.#mute = true;
      this.#onBadPeer(new HandshakeError(`the VMM does not read its channel: ${why}`));
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

  /** Closes the link, but not to a VMM that may still ask: that is answered, and nobody hears of it, until it goes. */
  letGo(): void {
    if (this.#codec?.answersLate !== true || this.#deaf) {
      this.close();
      return;
    }
    this.stopListening();
    this.#alone = true;
  }

  hangUp(): void {
    if (this.#alone) this.close();
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
    if (this.#deaf) {
      for (const fd of descriptors) closeSync(fd);
      return;
    }
    try {
      const text = this.#decoder.write(data);
      // What comes behind the handshake's own belongs to nothing that is spoken here.
      if (this.#codec ?? this.#opening) for (const fd of descriptors) closeSync(fd);
      else this.#early.descriptors.push(...descriptors);
      if (this.#codec) this.#onMessages(this.#codec, text);
      else this.#onHandshakeText(text);
    } catch (error) {
      if (!(error instanceof HandshakeError)) throw error;
      this.#refuse(error);
    }
  }

  #onHandshakeText(more: string): void {
    this.#early.text += more;
    if (this.#early.text.length > MAX_HANDSHAKE_BYTES)
      throw new HandshakeError(`the handshake is longer than ${MAX_HANDSHAKE_BYTES} bytes`);
    this.#opening ??= this.#readOffer();
    if (!this.#opening) return;
    const { received, codec } = this.#opening;
    const { text } = this.#early;
    const end = codec.opening(text);
    if (end === undefined) return;
    this.#events.onCandidate?.(received);
    clearTimeout(this.#timer);
    this.#codec = codec;
    this.#opening = undefined;
    this.#early = { text: '', descriptors: [] };
    this.#events.onOffer(received);
    this.#onMessages(codec, text.slice(end));
  }

  /** Takes the JSON of the handshake off what has come; undefined: it is not whole yet. */
  #readOffer(): Opening | undefined {
    const { text, descriptors } = this.#early;
    const first = text.trimStart()[0];
    if (first !== undefined && first !== '[' && first !== '{')
      throw new HandshakeError(`the handshake is not JSON: it begins with ${JSON.stringify(text.slice(0, 40))}`);
    // Our own ends with a newline; Firecracker's array ends with itself.
    const end = first === '[' ? (endOfJson(text) ?? -1) : text.indexOf('\n');
    if (end < 0) return undefined;
    const offer = parseHandshake(text.slice(0, end), descriptors.length);
    this.#early.text = text.slice(end);
    return { received: { offer, descriptors, pid: this.#vmm?.peer().pid ?? 0 }, codec: codecFor(offer) };
  }

  #onMessages(codec: VmmCodec, text: string): void {
    const { messages, answer } = codec.read(text);
    this.#say(answer);
    for (const message of messages) this.#events.onMessage(message);
  }

  #refuse(error: HandshakeError): void {
    if (this.#codec) {
      this.#onBadPeer(error);
      return;
    }
    // A peer that does not speak the protocol is told why, and the next one may try.
    clearTimeout(this.#timer);
    const vmm = this.#vmm;
    const message: AgentMessage = { type: 'failed', reason: 'BAD_HANDSHAKE', message: error.message };
    vmm?.send(Buffer.from(`${JSON.stringify(message)}\n`), []);
    this.#discardDescriptors();
    this.#vmm = undefined;
    this.#events.onBadPeer(error);
    vmm?.close();
  }

  /** Whose memory we have. The link stays open: its pid is its own as long, and it is told once nobody waits for what will not come. */
  #onBadPeer(error: HandshakeError): void {
    this.#deaf = true;
    if (this.#alone) this.close();
    else this.#events.onBadPeer(error);
  }

  #discardDescriptors(): void {
    for (const fd of this.#early.descriptors) closeSync(fd);
    this.#early = { text: '', descriptors: [] };
    this.#opening = undefined;
  }

  #onClose(): void {
    clearTimeout(this.#timer);
    if (!this.#codec) {
      const spoke = this.#vmm !== undefined;
      this.#discardDescriptors();
      this.#vmm = undefined;
      if (spoke) this.#events.onBadPeer(new HandshakeError('the VMM closed its socket before the handshake was whole'));
      return;
    }
    if (!this.#alone) this.#events.onClose();
  }
}
