/**
 * One bidirectional gRPC call on a connection of its own, straight on node:http2: for a lane whose BareClient finds nobody. grpc-js copies every message
 * twice on its way and makes a buffer for each, which costs more than the network (docs/performance.md). The server may be any that speaks gRPC.
 */
import {
  connect,
  constants,
  type ClientHttp2Session,
  type ClientHttp2Stream,
  type IncomingHttpHeaders,
} from 'node:http2';
import { Metadata, status } from '@grpc/grpc-js';
import { formatAddress } from './address.ts';
import { KEEPALIVE_MS, linkSecurity, MAX_MESSAGE_BYTES, type ClientLinkOptions } from './link-security.ts';
import { ErrorReason, messageOf, PagewakeError } from './errors.ts';
import { framed, MessageReader } from './message-reader.ts';
import { fromServiceError } from './service-errors.ts';

export interface StreamClientOptions {
  readonly address: string;
  readonly link: ClientLinkOptions;
  /** `/package.Service/Method`. */
  readonly path: string;
  /** How much the server may send ahead. */
  readonly windowBytes: number;
}

export interface StreamClientEvents {
  /** The server is there. */
  onConnect(): void;
  /** `message` is valid until this returns. A PagewakeError that it throws ends the call with that error. */
  onMessage(message: Buffer): void;
  /** The call is over, however it ended. Once, and nothing comes after it. SOURCE_LOST where it was the link. */
  onEnd(error: PagewakeError): void;
}

const OK: number = status.OK;
/** A SYN that nobody answers would be waited for for two minutes. */
const CONNECT_MS = 10_000;

export class StreamClient {
  readonly #options: StreamClientOptions;
  readonly #events: StreamClientEvents;
  #session: ClientHttp2Session | undefined;
  #stream: ClientHttp2Stream | undefined;
  /** What was written before there was a connection. */
  #early: Buffer[] = [];
  #over = false;
  #timer: NodeJS.Timeout | undefined;

  /** Connects at once; messages may be written at once. Throws UserError for what is wrong with the link's options. */
  constructor(options: StreamClientOptions, events: StreamClientEvents) {
    this.#options = options;
    this.#events = events;
    this.#connect();
  }

  write(message: Uint8Array): void {
    if (this.#over) return;
    const bytes = framed(message);
    if (this.#stream === undefined) this.#early.push(bytes);
    else this.#stream.write(bytes);
  }

  /** Ends the call without a word to `onEnd`. */
  close(): void {
    this.#over = true;
    this.#close(constants.NGHTTP2_CANCEL);
  }

  #connect(): void {
    const { address, link, windowBytes } = this.#options;
    const { at, tls } = linkSecurity(address, link);
    const target = formatAddress(at);
    const settings = { initialWindowSize: windowBytes, enablePush: false };
    const session =
      tls === undefined
        ? connect(`http://${target}`, { settings })
        : connect(`https://${target}`, {
            settings,
            servername: tls.serverName,
            checkServerIdentity: tls.checkServerIdentity,
            ...(tls.ca === null ? {} : { ca: tls.ca }),
            ...(tls.cert === null || tls.key === null ? {} : { cert: tls.cert, key: tls.key }),
          });
    this.#session = session;
    const lose = (why: string): void => this.#end(new PagewakeError(ErrorReason.SOURCE_LOST, `${target}: ${why}`));
    this.#timer = setTimeout(() => lose(`no answer within ${CONNECT_MS} ms`), CONNECT_MS);
    session.once('remoteSettings', () => {
      if (this.#over) return;
      this.#open(session);
      this.#events.onConnect();
    });
    session.on('error', (error: unknown) => lose(messageOf(error)));
    session.on('close', () => lose('connection closed'));
  }

  #open(session: ClientHttp2Session): void {
    session.setLocalWindowSize(this.#options.windowBytes);
    this.#keepAlive(session);
    const stream = session.request({
      ':method': 'POST',
      ':path': this.#options.path,
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    this.#stream = stream;
    const reader = new MessageReader(MAX_MESSAGE_BYTES, (message) => this.#receive(message));
    let trailers: IncomingHttpHeaders | undefined;
    // A call that fails at once has its status in the headers.
    stream.on('response', (headers) => (trailers = headers));
    stream.on('trailers', (headers) => (trailers = headers));
    stream.on('data', (chunk: Buffer) => {
      try {
        reader.push(chunk);
      } catch (error) {
        // What else is thrown is a bug of ours, and not the end of a call.
        if (!(error instanceof PagewakeError)) throw error;
        this.#end(new PagewakeError(ErrorReason.SOURCE_LOST, error.message));
      }
    });
    stream.on('error', () => undefined);
    // Trailers are told in the turn after the end.
    stream.on('end', () => setImmediate(() => this.#end(errorOf(trailers))));
    stream.on('close', () => this.#end(errorOf(trailers)));
    for (const message of this.#early.splice(0)) stream.write(message);
  }

  #receive(message: Buffer): void {
    if (this.#over) return;
    try {
      this.#events.onMessage(message);
    } catch (error) {
      if (!(error instanceof PagewakeError)) throw error;
      this.#end(error);
    }
  }

  /** A peer that vanished without a word is noticed after two of these. */
  #keepAlive(session: ClientHttp2Session): void {
    let answered = true;
    clearTimeout(this.#timer);
    this.#timer = setInterval(() => {
      if (!answered) session.destroy(new Error('keepalive was not answered'));
      else if (!session.destroyed) {
        answered = false;
        session.ping(() => (answered = true));
      }
    }, KEEPALIVE_MS).unref();
  }

  #end(error: PagewakeError): void {
    if (this.#over) return;
    this.#over = true;
    this.#close(constants.NGHTTP2_CANCEL);
    this.#events.onEnd(error);
  }

  #close(code: number): void {
    clearInterval(this.#timer);
    this.#stream?.close(code);
    this.#session?.destroy();
  }
}

/** What the end of a call means, by its trailers. An end without a status is a link that broke. */
function errorOf(trailers: IncomingHttpHeaders | undefined): PagewakeError {
  const code = trailers?.['grpc-status'];
  if (trailers === undefined || code === undefined)
    return new PagewakeError(ErrorReason.SOURCE_LOST, 'the connection to the source broke');
  if (Number(code) === OK) return new PagewakeError(ErrorReason.SOURCE_LOST, 'the source ended the stream');
  const text = trailers['grpc-message'];
  const details = typeof text === 'string' ? decodeURIComponent(text) : '';
  return fromServiceError(
    { code: Number(code), details, metadata: Metadata.fromHttp2Headers(trailers) },
    ErrorReason.SOURCE_LOST,
  );
}
