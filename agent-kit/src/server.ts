/** A gRPC server as both agents need it: TLS rules, health, reflection, an error that names the address, a clean end. */
import { createServer } from 'node:net';
import { logVerbosity, Server, ServerCredentials, setLogVerbosity } from '@grpc/grpc-js';
import type { BoundService } from '@pagewake/proto';
import { HealthImplementation } from 'grpc-health-check';
import { formatAddress, isLoopback, parseAddress, type HostPort } from './address.ts';
import { COMMON_CHANNEL_OPTIONS } from './credentials.ts';
import { messageOf, UserError } from './errors.ts';
import { addReflection } from './reflection.ts';
import { readTls, TLS_OPTIONS, type TlsFiles } from './tls.ts';

export interface ServerOptions extends TlsFiles {
  /** `host:port`; port 0 lets the kernel choose. */
  readonly listen: string;
  /** Accept plaintext on an address that is not loopback. Default: false. */
  readonly insecurePlaintext?: boolean | undefined;
  readonly services: readonly BoundService[];
}

export interface RunningServer {
  /** Where it listens, with the port that was bound. */
  readonly address: string;
  readonly port: number;
  readonly security: 'plaintext' | 'tls' | 'mtls';
  /**
   * Health says NOT_SERVING, new calls are refused, running ones may end within `drainMs`, then they are cut.
   * Calling it again gives the same promise.
   */
  shutdown(drainMs?: number): Promise<void>;
}

const DEFAULT_DRAIN_MS = 5000;

export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const wanted = parseAddress(options.listen, '--listen');
  const { credentials, security } = serverCredentials(options, wanted);
  // grpc-js prints a failed bind itself; our error says it better. Its own variable switches its log on again.
  if (process.env['GRPC_VERBOSITY'] === undefined) setLogVerbosity(logVerbosity.NONE);
  const server = new Server({ ...COMMON_CHANNEL_OPTIONS });
  for (const service of options.services) server.addService(service.definition, service.implementation);
  const names = ['', ...options.services.map((service) => service.descriptor.typeName)];
  const health = new HealthImplementation(Object.fromEntries(names.map((name) => [name, 'SERVING' as const])));
  health.addToServer(server);
  addReflection(
    server,
    options.services.map((service) => service.descriptor),
  );

  const port = await bind(server, wanted, credentials);
  let ending: Promise<void> | undefined;
  return {
    address: formatAddress({ host: wanted.host, port }),
    port,
    security,
    shutdown(drainMs = DEFAULT_DRAIN_MS) {
      ending ??= drain(server, drainMs, () => {
        for (const name of names) health.setStatus(name, 'NOT_SERVING');
      });
      return ending;
    },
  };
}

function serverCredentials(options: ServerOptions, { host }: HostPort) {
  const { ca, pair } = readTls(options);
  if (pair !== null) {
    const keyPair = { private_key: pair.key, cert_chain: pair.cert };
    const credentials = ServerCredentials.createSsl(ca, [keyPair], ca !== null);
    return { credentials, security: ca === null ? ('tls' as const) : ('mtls' as const) };
  }
  if (ca !== null) {
    throw new UserError(
      `${TLS_OPTIONS.ca} asks for client certificates, which needs ${TLS_OPTIONS.cert} and ${TLS_OPTIONS.key}`,
      2,
    );
  }
  if (!isLoopback(host) && options.insecurePlaintext !== true) {
    throw new UserError(
      `refusing plaintext on ${options.listen}, which is not loopback: give ${TLS_OPTIONS.cert} and ${TLS_OPTIONS.key} ` +
        `(and ${TLS_OPTIONS.ca} to ask for client certificates), or --insecure-plaintext if the network is trusted`,
      2,
    );
  }
  return { credentials: ServerCredentials.createInsecure(), security: 'plaintext' as const };
}

async function bind(server: Server, wanted: HostPort, credentials: ServerCredentials): Promise<number> {
  const address = formatAddress(wanted);
  try {
    return await new Promise((resolve, reject) => {
      server.bindAsync(address, credentials, (error, port) => (error === null ? resolve(port) : reject(error)));
    });
  } catch (error) {
    server.forceShutdown();
    throw new UserError(`cannot listen on ${address}: ${await whyNotBound(wanted, error)}`, 1, { cause: error });
  }
}

/** grpc-js has only a text for a failed bind, so the kernel is asked again for its errno. */
async function whyNotBound({ host, port }: HostPort, original: unknown): Promise<string> {
  const code = await new Promise<string | undefined>((resolve) => {
    const probe = createServer();
    probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code));
    probe.listen({ host, port }, () => probe.close(() => resolve(undefined)));
  });
  switch (code) {
    case 'EADDRINUSE':
      return 'the port is in use; stop what listens there or give another --listen';
    case 'EADDRNOTAVAIL':
      return 'this host has no such address; give one of its own, or 0.0.0.0 for all of them';
    case 'EACCES':
      return 'not permitted; ports below 1024 need CAP_NET_BIND_SERVICE';
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return `the name ${host} does not resolve`;
    case undefined:
      return messageOf(original);
    default:
      return code;
  }
}

function drain(server: Server, drainMs: number, announce: () => void): Promise<void> {
  announce();
  return new Promise((resolve) => {
    const timer = setTimeout(() => {
      // Streams of a migration may last for hours: whoever stops the agent has said that they must not.
      server.forceShutdown();
      resolve();
    }, drainMs);
    server.tryShutdown(() => {
      clearTimeout(timer);
      resolve();
    });
  });
}
