/**
 * Messages over a bare connection, TCP or TLS, each behind gRPC's prefix: for a lane on which HTTP/2 costs more than what it carries. An empty message is
 * a keepalive, and answered by an empty one.
 */
import { connect as connectTcp, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { formatAddress } from './address.ts';
import { KEEPALIVE_MS, linkSecurity, MAX_MESSAGE_BYTES, type ClientLinkOptions } from './credentials.ts';
import { ErrorReason, messageOf, PagewakeError } from './errors.ts';
import { framed, MessageReader } from './message-reader.ts';

export interface BareClientOptions {
  readonly address: string;
  readonly link: ClientLinkOptions;
  readonly connectTimeoutMs: number;
}

export interface BareClientEvents {
  /** Both sides may speak. Messages that were written before go out now. */
  onConnect(): void;
  /** `message` is valid until this returns. */
  onMessage(message: Buffer): void;
  /** Once, and nothing comes after it. SOURCE_UNREACHABLE before `onConnect`, SOURCE_LOST after it. */
  onEnd(error: PagewakeError): void;
}

/** Read at once: as much as a lane's messages mostly have. */
const READ_BYTES = 256 * 1024;

export class BareClient {
  readonly #events: BareClientEvents;
  readonly #reader: MessageReader;
  readonly #socket: Socket;
  readonly #target: string;
  #connected = false;
  #over = false;
  #answered = true;
  #timer: NodeJS.Timeout;

  /** Throws UserError for what is wrong with the link's options. */
  constructor({ address, link, connectTimeoutMs }: BareClientOptions, events: BareClientEvents) {
    this.#events = events;
    this.#reader = new MessageReader(MAX_MESSAGE_BYTES, (message) => this.#receive(message));
    const { at, tls } = linkSecurity(address, link);
    this.#target = formatAddress(at);
    if (tls === undefined) {
      // One buffer for all that comes: a fresh one for each read is a fault a page and a collection now and then.
      const buffer = Buffer.allocUnsafeSlow(READ_BYTES);
      const callback = (bytes: number): boolean => this.#read(buffer.subarray(0, bytes));
      this.#socket = connectTcp({ ...at, onread: { buffer, callback } });
      this.#socket.once('connect', () => this.#connect());
    } else {
      this.#socket = connectTls({
        ...at,
        servername: tls.serverName,
        checkServerIdentity: tls.checkServerIdentity,
        ...(tls.ca === null ? {} : { ca: tls.ca }),
        ...(tls.cert === null || tls.key === null ? {} : { cert: tls.cert, key: tls.key }),
      });
      this.#socket.once('secureConnect', () => this.#connect());
      this.#socket.on('data', (chunk: Buffer) => this.#read(chunk));
    }
    this.#socket.setNoDelay(true);
    this.#socket.on('error', (error) => this.#lose(messageOf(error)));
    this.#socket.on('end', () => this.#lose('the source ended the connection'));
    this.#socket.on('close', () => this.#lose('connection closed'));
    this.#timer = setTimeout(() => this.#lose(`no answer within ${connectTimeoutMs} ms`), connectTimeoutMs);
  }

  write(message: Uint8Array): void {
    if (!this.#over) this.#socket.write(framed(message));
  }

  /** Ends the connection without a word to `onEnd`. */
  close(): void {
    this.#over = true;
    clearTimeout(this.#timer);
    this.#socket.destroy();
  }

  #connect(): void {
    if (this.#over) return;
    this.#connected = true;
    clearTimeout(this.#timer);
    this.#timer = setInterval(() => this.#keepAlive(), KEEPALIVE_MS).unref();
    this.#events.onConnect();
  }

  #keepAlive(): void {
    if (!this.#answered) this.#lose('keepalive was not answered');
    this.#answered = false;
    this.write(new Uint8Array(0));
  }

  /** @returns true, for `onread`: go on */
  #read(chunk: Buffer): true {
    this.#answered = true;
    try {
      this.#reader.push(chunk);
    } catch (error) {
      // What else is thrown is a bug of ours, and not the end of a connection.
      if (!(error instanceof PagewakeError)) throw error;
      this.#end(error);
    }
    return true;
  }

  #receive(message: Buffer): void {
    if (!this.#over && message.length > 0) this.#events.onMessage(message);
  }

  #lose(why: string): void {
    const reason = this.#connected ? ErrorReason.SOURCE_LOST : ErrorReason.SOURCE_UNREACHABLE;
    this.#end(new PagewakeError(reason, `${this.#target}: ${why}`));
  }

  #end(error: PagewakeError): void {
    if (this.#over) return;
    this.close();
    this.#events.onEnd(error);
  }
}
