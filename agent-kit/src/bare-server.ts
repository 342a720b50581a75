/**
 * The other end of BareClient. Whoever connects is a stranger until his first message has been found good, and a stranger costs next to nothing: he has a
 * few seconds, one short message, and must make room for the next where there are many.
 */
import { createServer as createTcpServer, isIPv6, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer } from 'node:tls';
import type { HostPort } from './address.ts';
import { KEEPALIVE_MS } from './link-security.ts';
import { ErrorReason, PagewakeError } from './errors.ts';
import { framed, MessageReader } from './message-reader.ts';
import { StraightWriter, type SendNow } from './straight-writer.ts';
import { readTls, type TlsFiles } from './tls.ts';

export interface BareServerOptions extends TlsFiles {
  readonly at: HostPort;
  /** Of one that was admitted; longer messages end the connection. */
  readonly maxMessageBytes: number;
  /** Written and not yet taken: beyond that `write` says so. Default: Node's. */
  readonly highWaterMarkBytes?: number;
  /** Default: 10 s. */
  readonly strangerMs?: number;
  /** Of connections without TLS: writes go this way while nothing waits to be written. */
  readonly sendNow?: SendNow;
}

export interface BareConnection {
  /** The first message was good. May be called while it is told, or later: until then nothing more is. */
  admit(): void;
  /** Bytes of whole messages with their prefix. False: the peer is behind, and is not read from until `onDrain`. */
  write(bytes: Uint8Array, taken?: () => void): boolean;
  /** `last` and what was written before still goes out; nothing more is told but `onClose`. */
  end(last?: Uint8Array): void;
}

export interface BareConnectionEvents {
  /** `message` is valid until this returns, and never empty. */
  onMessage(message: Buffer): void;
  /** All that came at once has been told. */
  onRead(): void;
  onDrain(): void;
  /** What came is no message. To be ended. */
  onGarbage(error: PagewakeError): void;
  onClose(): void;
}

export interface BareServer {
  readonly port: number;
  close(): Promise<void>;
}

/** For TLS, the first message, and whoever has to look whether it is good. */
const STRANGER_MS = 10_000;
/** A session and a few questions. */
const STRANGER_MESSAGE_BYTES = 4096;
/** Messages that came behind the first one while it was looked at. */
const STRANGER_MESSAGES = 256;
/** One more, and one is let go: of the host that has most of them the one that has been there for longest, so that no host crowds out another. */
const MAX_STRANGERS = 64;
const MAX_CONNECTIONS = 1024;
/** A peer that does not take the last word is not waited for. */
const LAST_WORD_MS = 1000;
const SIGN_OF_LIFE = framed(new Uint8Array(0));

/** Rejects with the bind's error. @param onConnection gives what is to be told of the connection */
export async function startBareServer(
  options: BareServerOptions,
  onConnection: (connection: BareConnection) => BareConnectionEvents,
): Promise<BareServer> {
  const sockets = new Set<Socket>();
  const strangers = new Strangers(options.strangerMs ?? STRANGER_MS);
  const server = createServer(options, (socket) => void new Peer(socket, options, strangers, onConnection));
  server.maxConnections = MAX_CONNECTIONS;
  // Of TLS too this is the bare socket, before the handshake.
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    strangers.add(socket);
  });
  const { host, port } = options.at;
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host, port }, () => {
      server.off('error', reject);
      resolve();
    });
  });
  const bound = server.address();
  return {
    port: typeof bound === 'object' && bound !== null ? bound.port : port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      }),
  };
}

function createServer(options: BareServerOptions, accept: (socket: Socket) => void): Server {
  const { ca, pair } = readTls(options);
  const { highWaterMarkBytes: highWaterMark } = options;
  const common = {
    noDelay: true,
    // A peer that vanished without a word would stay for ever.
    keepAlive: true,
    keepAliveInitialDelay: KEEPALIVE_MS,
    ...(highWaterMark === undefined ? {} : { highWaterMark }),
  };
  if (pair === null) return createTcpServer(common, accept);
  const server = createTlsServer(
    { ...common, ...pair, ...(ca === null ? {} : { ca, requestCert: true, rejectUnauthorized: true }) },
    accept,
  );
  // A peer that does not get through the handshake is no news.
  server.on('tlsClientError', () => undefined);
  return server;
}

/** By address and port: a TLS connection has two sockets. */
class Strangers {
  readonly #waitMs: number;
  readonly #sockets = new Map<string, Socket>();

  constructor(waitMs: number) {
    this.#waitMs = waitMs;
  }

  add(socket: Socket): void {
    const key = keyOf(socket);
    const late = setTimeout(() => {
      if (this.#sockets.get(key) === socket) socket.destroy();
    }, this.#waitMs).unref();
    socket.once('close', () => {
      clearTimeout(late);
      if (this.#sockets.get(key) === socket) this.#sockets.delete(key);
    });
    socket.on('error', () => undefined);
    this.#sockets.set(key, socket);
    if (this.#sockets.size <= MAX_STRANGERS) return;
    const host = this.#mostFrequentHost();
    for (const [oldest, its] of this.#sockets) {
      if (hostOf(oldest) !== host) continue;
      this.#sockets.delete(oldest);
      its.destroy();
      break;
    }
  }

  #mostFrequentHost(): string {
    const counts = new Map<string, number>();
    let most = '';
    for (const key of this.#sockets.keys()) {
      const host = hostOf(key);
      const count = (counts.get(host) ?? 0) + 1;
      counts.set(host, count);
      if (count > (counts.get(most) ?? 0)) most = host;
    }
    return most;
  }

  admit(socket: Socket): void {
    this.#sockets.delete(keyOf(socket));
  }
}

const hostOf = (key: string): string => networkOf(key.slice(0, key.lastIndexOf(' ')));

/** A host has all of an IPv6 /64 for itself (RFC 4291, 2.5.4) and may come from any address of it. */
export function networkOf(address: string): string {
  if (!isIPv6(address) || address.startsWith('::ffff:')) return address;
  const [left = [], right = []] = address.split('::').map((half) => half.split(':').filter((group) => group !== ''));
  const zeros = address.includes('::') ? Array.from({ length: 8 - left.length - right.length }, () => '0') : [];
  return [...left, ...zeros, ...right].slice(0, 4).join(':');
}

const keyOf = ({ remoteAddress, remotePort }: Socket): string => `${remoteAddress ?? ''} ${remotePort ?? 0}`;

class Peer implements BareConnection {
  readonly #socket: Socket;
  readonly #writer: StraightWriter;
  readonly #options: BareServerOptions;
  readonly #strangers: Strangers;
  readonly #reader: MessageReader;
  readonly #events: BareConnectionEvents;
  #state: 'stranger' | 'asked-about' | 'admitted' | 'ended' = 'stranger';
  /** Copies of what came before it was admitted, but for the first message. */
  readonly #waiting: Buffer[] = [];
  #behind = false;

  constructor(
    socket: Socket,
    options: BareServerOptions,
    strangers: Strangers,
    onConnection: (connection: BareConnection) => BareConnectionEvents,
  ) {
    this.#socket = socket;
    this.#writer = new StraightWriter(socket, options.tlsCert === undefined ? options.sendNow : undefined);
    this.#options = options;
    this.#strangers = strangers;
    this.#reader = new MessageReader(STRANGER_MESSAGE_BYTES, (message) => this.#take(message));
    this.#events = onConnection(this);
    socket.on('data', (chunk: Buffer) => this.#read(chunk));
    socket.on('drain', () => this.#drained());
    socket.on('error', () => undefined);
    socket.once('end', () => this.end());
    socket.once('close', () => {
      this.#state = 'ended';
      this.#events.onClose();
    });
  }

  admit(): void {
    if (this.#state === 'admitted' || this.#state === 'ended') return;
    this.#state = 'admitted';
    this.#strangers.admit(this.#socket);
    this.#reader.maxBytes = this.#options.maxMessageBytes;
    for (const message of this.#waiting.splice(0)) this.#take(message);
    this.#events.onRead();
    this.#readOn();
  }

  write(bytes: Uint8Array, taken?: () => void): boolean {
    if (this.#writer.write(bytes, taken)) return true;
    this.#behind = true;
    // A peer that asks and does not take must not fill our memory with its questions.
    this.#socket.pause();
    return false;
  }

  end(last?: Uint8Array): void {
    if (this.#state === 'ended') return;
    this.#state = 'ended';
    if (last !== undefined) this.#socket.write(last);
    this.#socket.end();
    // What still comes is read, or the end of it would not be, and thrown away.
    this.#socket.resume();
    setTimeout(() => this.#socket.destroy(), LAST_WORD_MS).unref();
  }

  #read(chunk: Buffer): void {
    if (this.#state === 'ended') return;
    try {
      this.#reader.push(chunk);
    } catch (error) {
      if (!(error instanceof PagewakeError)) throw error;
      this.#events.onGarbage(error);
      return;
    }
    if (this.#state === 'admitted') this.#events.onRead();
  }

  #take(message: Buffer): void {
    switch (this.#state) {
      case 'admitted':
        if (message.length === 0) this.write(SIGN_OF_LIFE);
        else this.#events.onMessage(message);
        return;
      case 'stranger':
        if (message.length === 0) this.#keep(message);
        else {
          this.#state = 'asked-about';
          this.#socket.pause();
          this.#events.onMessage(message);
        }
        return;
      case 'asked-about':
        this.#keep(message);
        return;
      case 'ended':
    }
  }

  #keep(message: Buffer): void {
    if (this.#waiting.length >= STRANGER_MESSAGES)
      throw new PagewakeError(ErrorReason.INVALID_ARGUMENT, 'too much at once from one that is not known yet');
    this.#waiting.push(Buffer.from(message));
  }

  #drained(): void {
    this.#behind = false;
    if (this.#state === 'ended') return;
    this.#readOn();
    this.#events.onDrain();
  }

  #readOn(): void {
    if (!this.#behind && this.#state === 'admitted') this.#socket.resume();
  }
}
