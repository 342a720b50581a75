/**
 * The demand lane's way to a source that takes faults on a connection of its own: the messages of `Faults`, each behind gRPC's prefix, and nothing
 * else between a fault and the network.
 */
import { connect, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { fromBinary } from '@bufbuild/protobuf';
import {
  decodeFaultsResponse,
  encodeFaultsRequest,
  FaultsResponseSchema,
  type FaultsResponse,
  type MessageBytes,
} from '@pagewake/proto';
import {
  ErrorReason,
  linkSecurity,
  MESSAGE_PREFIX_BYTES,
  MessageReader,
  messageOf,
  PagewakeError,
  putMessagePrefix,
  type ClientLinkOptions,
} from '../kit.ts';
import type { FaultOnWire, StreamEvents } from './page-source.ts';

export interface FaultConnectionOptions {
  /** `host:port`. */
  readonly address: string;
  readonly link: ClientLinkOptions;
  readonly session: Uint8Array;
  readonly count: MessageBytes;
}

export interface FaultConnectionEvents extends StreamEvents<FaultsResponse> {
  /** It never was: a firewall knows only the other port. Nothing comes after this. */
  onUnreachable(why: string): void;
}

/** A page of 2 MiB, its frame, its prefix. */
const MAX_RESPONSE_BYTES = 4 * 1024 * 1024 + 1024;
const READ_BYTES = 256 * 1024;
const CONNECT_TIMEOUT_MS = 1000;
/** A source that vanished without a word is noticed after two of these. */
const SIGN_OF_LIFE_MS = 10_000;
const NOTHING = new Uint8Array(0);

export class FaultConnection {
  readonly #options: FaultConnectionOptions;
  readonly #events: FaultConnectionEvents;
  readonly #socket: Socket;
  readonly #reader: MessageReader;
  readonly #timers: NodeJS.Timeout[] = [];
  #connected = false;
  #heard = true;
  #over = false;

  /** Connects at once; may be asked at once. What `onResponse` gets is valid until it returns. */
  constructor(options: FaultConnectionOptions, events: FaultConnectionEvents) {
    this.#options = options;
    this.#events = events;
    this.#reader = new MessageReader(MAX_RESPONSE_BYTES, (message) => this.#onMessage(message));
    this.#socket = this.#connect();
    this.#write(encodeFaultsRequest({ session: options.session, faults: [] }));
  }

  /** Never waits: the faults that can be outstanding are as many as there are threads in the VMM. */
  request(faults: readonly FaultOnWire[]): void {
    if (!this.#over) this.#write(encodeFaultsRequest({ session: NOTHING, faults }));
  }

  cancel(): void {
    this.#close();
  }

  #connect(): Socket {
    const { at, tls } = linkSecurity(this.#options.address, this.#options.link);
    const read = (chunk: Buffer): void => this.#read(chunk);
    let socket: Socket;
    if (tls === undefined) {
      // One buffer for all that is ever read: a fresh one for each reading costs as much as the reading.
      const buffer = Buffer.allocUnsafeSlow(READ_BYTES);
      const callback = (bytes: number): boolean => {
        read(buffer.subarray(0, bytes));
        return true;
      };
      socket = connect({ ...at, noDelay: true, onread: { buffer, callback } }, () => this.#onConnected());
    } else {
      const { ca, cert, key, serverName, checkServerIdentity } = tls;
      const material = { ...(ca && { ca }), ...(cert && key && { cert, key }) };
      socket = connectTls({ ...at, ...material, servername: serverName, checkServerIdentity }, () =>
        this.#onConnected(),
      );
      socket.setNoDelay(true);
      socket.on('data', read);
    }
    const timer = setTimeout(
      () => socket.destroy(new Error(`no answer within ${CONNECT_TIMEOUT_MS} ms`)),
      CONNECT_TIMEOUT_MS,
    );
    this.#timers.push(timer);
    socket.on('error', (error) => this.#onGone(messageOf(error)));
    socket.on('end', () => this.#onGone('the source closed the connection'));
    socket.on('close', () => this.#onGone('connection closed'));
    return socket;
  }

  #onConnected(): void {
    for (const timer of this.#timers.splice(0)) clearTimeout(timer);
    if (this.#over) return;
    this.#connected = true;
    const timer = setInterval(() => {
      if (!this.#heard) this.#socket.destroy(new Error('the source gives no sign of life'));
      this.#heard = false;
      // An empty message is answered with one.
      if (!this.#over) this.#write(NOTHING);
    }, SIGN_OF_LIFE_MS);
    this.#timers.push(timer.unref());
  }

  #read(chunk: Buffer): void {
    if (this.#over) return;
    this.#heard = true;
    try {
      this.#reader.push(chunk);
    } catch (error) {
      // What else is thrown is a bug of ours, and not the end of a connection.
      if (!(error instanceof PagewakeError)) throw error;
      this.#end(error);
    }
  }

  #onMessage(message: Buffer): void {
    if (this.#over) return;
    this.#options.count(message.length);
    const response = decoded(message);
    if (response.frame !== undefined) this.#events.onResponse(response);
    else if (message.length > 0) this.#end(lastWord(message));
  }

  #write(message: Uint8Array): void {
    this.#options.count(message.length);
    const framed = Buffer.allocUnsafe(MESSAGE_PREFIX_BYTES + message.length);
    framed.set(message, MESSAGE_PREFIX_BYTES);
    putMessagePrefix(framed, MESSAGE_PREFIX_BYTES, message.length);
    this.#socket.write(framed);
  }

  #onGone(why: string): void {
    if (this.#connected) this.#end(new PagewakeError(ErrorReason.SOURCE_LOST, `${this.#options.address}: ${why}`));
    else if (!this.#over) {
      this.#close();
      this.#events.onUnreachable(why);
    }
  }

  #end(error: PagewakeError): void {
    if (this.#over) return;
    this.#close();
    this.#events.onEnd(error);
  }

  #close(): void {
    this.#over = true;
    for (const timer of this.#timers.splice(0)) clearTimeout(timer);
    this.#socket.destroy();
  }
}

function decoded(message: Buffer): FaultsResponse {
  try {
    return decodeFaultsResponse(message);
  } catch (error) {
    throw new PagewakeError(ErrorReason.SOURCE_LOST, `what came is no message: ${messageOf(error)}`);
  }
}

/** A message without a frame says why the source ends the connection. */
function lastWord(message: Buffer): PagewakeError {
  const { error } = fromBinary(FaultsResponseSchema, message);
  if (!error) return new PagewakeError(ErrorReason.MALFORMED_FRAME, 'a message without a frame');
  // A source that is stopped cancels: it went away and may come back.
  const reason = error.reason === ErrorReason.CANCELLED ? ErrorReason.SOURCE_LOST : error.reason;
  return new PagewakeError(reason, error.message, error.metadata);
}
