/** Where bare connections of the demand lane are taken: TCP, or TLS by the files that the gRPC port has. */
import { createServer as createTcpServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer } from 'node:tls';
import { messageOf, readTls, UserError, type TlsFiles } from '@pagewake/agent-kit';

export interface FaultPortOptions extends TlsFiles {
  readonly host: string;
  /** 0: the kernel chooses. */
  readonly port: number;
}

export interface FaultPort {
  /** What was bound. */
  readonly port: number;
  /** Takes no more connections and cuts those that there are. Idempotent. */
  close(): void;
}

/** @throws UserError where the port cannot be had */
export async function openFaultPort(
  options: FaultPortOptions,
  onConnection: (socket: Socket) => void,
): Promise<FaultPort> {
  const sockets = new Set<Socket>();
  const take = (socket: Socket): void => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    onConnection(socket);
  };
  const server = serverOf(options, take);
  await listen(server, options);
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  return {
    port,
    close() {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

function serverOf(options: FaultPortOptions, take: (socket: Socket) => void): Server {
  const { ca, pair } = readTls(options);
  if (pair === null) return createTcpServer({ noDelay: true }, take);
  const server = createTlsServer(
    { ...pair, ...(ca === null ? {} : { ca, requestCert: true, rejectUnauthorized: true }), noDelay: true },
    take,
  );
  // A stranger without a certificate is refused by the handshake, and is nobody's error here.
  server.on('tlsClientError', () => undefined);
  return server;
}

function listen(server: Server, { host, port }: FaultPortOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error) =>
      reject(new UserError(`cannot listen on port ${port} for faults (--fault-port): ${messageOf(error)}`, 1)),
    );
    server.listen({ host, port }, resolve);
  });
}
