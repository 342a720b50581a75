/** The other end of BareClient. */
import { createServer as createTcpServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer } from 'node:tls';
import type { HostPort } from './address.ts';
import { messageOf, PagewakeError } from './errors.ts';
import { MessageReader } from './message-reader.ts';
import { readTls, type TlsFiles } from './tls.ts';

export interface BareServerOptions extends TlsFiles {
  readonly at: HostPort;
  /** Longer messages end the connection. */
  readonly maxMessageBytes: number;
  /** A connection that says nothing for so long after it was made is closed. */
  readonly silenceMs: number;
  /** Written and not yet taken: beyond that `write` says so. */
  readonly highWaterMarkBytes: number;
}

export interface BareConnection {
  /** Bytes of whole messages with their prefix. False: the peer is behind, wait for `onDrain`. */
  write(bytes: Uint8Array, taken?: () => void): boolean;
  /** What was written still goes out. */
  end(): void;
  /** Stops or goes on reading. */
  pause(): void;
  resume(): void;
}

export interface BareConnectionEvents {
  /** `message` is valid until this returns. What it throws ends the connection. */
  onMessage(message: Buffer): void;
  onDrain(): void;
  onClose(): void;
}

export interface BareServer {
  readonly port: number;
  close(): Promise<void>;
}

/** Rejects with the bind's error. @param onConnection gives what is to be told of the connection */
export async function startBareServer(
  options: BareServerOptions,
  onConnection: (connection: BareConnection) => BareConnectionEvents,
): Promise<BareServer> {
  const sockets = new Set<Socket>();
  const accept = (socket: Socket): void => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    serve(socket, options, onConnection);
  };
  const server = createServer(options, accept);
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
  const common = { noDelay: true, highWaterMark: options.highWaterMarkBytes };
  if (pair === null) return createTcpServer(common, accept);
  const server = createTlsServer(
    { ...common, ...pair, ...(ca === null ? {} : { ca, requestCert: true, rejectUnauthorized: true }) },
    accept,
  );
  // A peer that does not get through the handshake is no news.
  server.on('tlsClientError', () => undefined);
  return server;
}

function serve(
  socket: Socket,
  { maxMessageBytes, silenceMs }: BareServerOptions,
  onConnection: (connection: BareConnection) => BareConnectionEvents,
): void {
  const events = onConnection({
    write: (bytes, taken) => socket.write(bytes, () => taken?.()),
    end: () => {
      socket.end();
      // A peer that does not close its side is not waited for.
      setTimeout(() => socket.destroy(), silenceMs).unref();
    },
    pause: () => void socket.pause(),
    resume: () => void socket.resume(),
  });
  const silence = setTimeout(() => socket.destroy(), silenceMs);
  const reader = new MessageReader(maxMessageBytes, (message) => {
    clearTimeout(silence);
    if (message.length === 0) socket.write(Buffer.alloc(5));
    else events.onMessage(message);
  });
  socket.on('data', (chunk: Buffer) => {
    try {
      reader.push(chunk);
    } catch (error) {
      if (!(error instanceof PagewakeError)) throw error;
      socket.destroy(new Error(messageOf(error)));
    }
  });
  socket.on('drain', () => events.onDrain());
  socket.on('error', () => undefined);
  socket.once('close', () => {
    clearTimeout(silence);
    events.onClose();
  });
}
