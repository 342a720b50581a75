/**
 * Messages over a bare connection, TCP or TLS, each behind gRPC's prefix: for a lane on which HTTP/2 costs more than what it carries. An empty message is
 * a sign of life, and answered by an empty one.
 *
 * That a port takes connections says little: a proxy, another program or a TLS server that is about to refuse us does too. So the first message is followed
 * by an empty one, and until something of ours comes back nobody is there.
 */
import { connect as connectTcp, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { formatAddress } from './address.ts';
import { KEEPALIVE_MS, linkSecurity, type ClientLinkOptions } from './link-security.ts';
import { ErrorReason, messageOf, PagewakeError } from './errors.ts';
import { framed, MessageReader } from './message-reader.ts';
import { StraightWriter, type SendNow } from './straight-writer.ts';

export interface BareClientOptions {
  readonly address: string;
  readonly link: ClientLinkOptions;
  /** Says who we are. */
  readonly first: Uint8Array;
  /** Longer messages end the connection. */
  readonly maxMessageBytes: number;
  /** To be connected and answered. */
  readonly answerWithinMs: number;
  /**
   * So many empty messages go there and back, one after the other, until the first that is written: what both ends do with a message is then code that
   * has run. Default: 0.
   */
  readonly exercises?: number;
  /** Of a connection without TLS: writes go this way while nothing waits to be written. */
  readonly sendNow?: SendNow;
}

export interface BareClientEvents {
  /** The other end is one of ours, and takes us. Once, before any `onMessage`. */
  onAnswer(): void;
  /** `message` is valid until this returns. A PagewakeError that it throws ends the connection with that error. */
  onMessage(message: Buffer): void;
  /** Once, and nothing comes after it. SOURCE_UNREACHABLE before `onAnswer`, after it SOURCE_LOST or what `onMessage` threw. */
  onEnd(error: PagewakeError): void;
}

/** Read at once: as much as a lane's messages mostly have. */
const READ_BYTES = 256 * 1024;
const SIGN_OF_LIFE = framed(new Uint8Array(0));

export class BareClient {
  readonly #events: BareClientEvents;
  readonly #reader: MessageReader;
  readonly #socket: Socket;
  readonly #writer: StraightWriter;
  readonly #target: string;
  #answered = false;
  #exercises: number;
  #heard = true;
  #over = false;
  #timer: NodeJS.Timeout;

  /** Connects at once; messages may be written at once. Throws UserError for what is wrong with the link's options. */
  constructor(options: BareClientOptions, events: BareClientEvents) {
    this.#events = events;
    this.#exercises = options.exercises ?? 0;
    this.#reader = new MessageReader(options.maxMessageBytes, (message) => this.#receive(message));
    const { at, tls } = linkSecurity(options.address, options.link);
    this.#target = formatAddress(at);
    if (tls === undefined) {
      // One buffer for all that comes: a fresh one for each read is a fault a page and a collection now and then.
      const buffer = Buffer.allocUnsafeSlow(READ_BYTES);
      const callback = (bytes: number): boolean => this.#read(buffer.subarray(0, bytes));
      this.#socket = connectTcp({ ...at, onread: { buffer, callback } });
    } else {
      this.#socket = connectTls({
        ...at,
        servername: tls.serverName,
        checkServerIdentity: tls.checkServerIdentity,
        ...(tls.ca === null ? {} : { ca: tls.ca }),
        ...(tls.cert === null || tls.key === null ? {} : { cert: tls.cert, key: tls.key }),
      });
      this.#socket.on('data', (chunk: Buffer) => this.#read(chunk));
    }
    this.#writer = new StraightWriter(this.#socket, tls === undefined ? options.sendNow : undefined);
    this.#socket.setNoDelay(true);
    this.#socket.on('error', (error) => this.#lose(messageOf(error)));
    this.#socket.on('end', () => this.#lose('the source ended the connection'));
    this.#socket.on('close', () => this.#lose('connection closed'));
    const { answerWithinMs } = options;
    this.#timer = setTimeout(() => this.#lose(`no answer within ${answerWithinMs} ms`), answerWithinMs);
    this.#writer.write(framed(options.first));
    this.#writer.write(SIGN_OF_LIFE);
  }

  write(message: Uint8Array): void {
    this.#exercises = 0;
    if (!this.#over) this.#writer.write(framed(message));
  }

  /** Ends the connection without a word to `onEnd`. */
  close(): void {
    this.#over = true;
    clearTimeout(this.#timer);
    this.#socket.destroy();
  }

  /** A peer that vanished without a word is noticed after two of these. */
  #giveSignOfLife(): void {
    if (!this.#heard) this.#lose('no sign of life');
    this.#heard = false;
    if (!this.#over) this.#writer.write(SIGN_OF_LIFE);
  }

  /** @returns true, for `onread`: go on */
  #read(chunk: Buffer): true {
    if (this.#over) return true;
    this.#heard = true;
    try {
      this.#reader.push(chunk);
    } catch (error) {
      // What else is thrown is a bug of ours, and not the end of a connection.
      if (!(error instanceof PagewakeError)) throw error;
      this.#lose(error.message);
    }
    return true;
  }

  #receive(message: Buffer): void {
    if (this.#over) return;
    if (!this.#answered) this.#answer();
    if (message.length === 0) {
      this.#exercise();
      return;
    }
    try {
      this.#events.onMessage(message);
    } catch (error) {
      if (!(error instanceof PagewakeError)) throw error;
      this.#end(error);
    }
  }

  #exercise(): void {
    if (this.#exercises === 0 || this.#over) return;
    this.#exercises--;
    this.#writer.write(SIGN_OF_LIFE);
  }

  #answer(): void {
    this.#answered = true;
    clearTimeout(this.#timer);
    this.#timer = setInterval(() => this.#giveSignOfLife(), KEEPALIVE_MS).unref();
    this.#events.onAnswer();
  }

  #lose(why: string): void {
    const reason = this.#answered ? ErrorReason.SOURCE_LOST : ErrorReason.SOURCE_UNREACHABLE;
    this.#end(new PagewakeError(reason, `${this.#target}: ${why}`));
  }

  #end(error: PagewakeError): void {
    if (this.#over) return;
    this.close();
    this.#events.onEnd(error);
  }
}
