/** How a link to an agent is secured, gRPC or not, and that plaintext leaves the host only when told. */
import { isIP } from 'node:net';
import { checkServerIdentity, type PeerCertificate } from 'node:tls';
import { isLoopback, parseAddress, type HostPort } from './address.ts';
import { UserError } from './errors.ts';
import { readTls, TLS_OPTIONS, type TlsFiles, type TlsOptionNames } from './tls.ts';

/** Both directions. A frame is at most 4 MiB (a bulk range, uncompressed) plus its few fields. */
export const MAX_MESSAGE_BYTES = 16 * 1024 * 1024;
export const KEEPALIVE_MS = 10_000;

export interface ClientLinkOptions extends TlsFiles {
  /** Name to verify in the server's certificate instead of the address' host. */
  readonly serverName?: string | undefined;
  /** Accept plaintext to a host that is not loopback. Default: false. */
  readonly insecurePlaintext?: boolean | undefined;
  /** How the options are called in errors. */
  readonly names?: TlsOptionNames;
}

/** Sent as the TLS server name where the address is an IP: it may be neither an IP (RFC 6066) nor empty (grpc-js). */
const NAME_OF_AN_IP = 'ip-address.invalid';

/** How a link is secured: TLS as `node:tls` wants it, or undefined for plaintext. */
export interface LinkSecurity {
  readonly at: HostPort;
  readonly tls:
    | {
        readonly ca: Buffer | null;
        readonly cert: Buffer | null;
        readonly key: Buffer | null;
        /** Sent as the TLS server name. */
        readonly serverName: string;
        readonly checkServerIdentity: (sent: string, certificate: PeerCertificate) => Error | undefined;
      }
    | undefined;
}

/** TLS as soon as one TLS file is given; plaintext to loopback, or where it is asked for; else an error that says so. */
export function linkSecurity(address: string, options: ClientLinkOptions = {}): LinkSecurity {
  const names = options.names ?? TLS_OPTIONS;
  const at = parseAddress(address, 'address of the agent');
  const { ca, pair } = readTls(options, names);
  if (ca !== null || pair !== null) {
    const expected = options.serverName ?? at.host;
    // grpc-js sets the server name to the host of the address, which Node refuses for an IP. So a name is
    // sent that means nothing, and the certificate is checked for the IP itself.
    const serverName = isIP(expected) === 0 ? expected : NAME_OF_AN_IP;
    return {
      at,
      tls: {
        ca,
        cert: pair?.cert ?? null,
        key: pair?.key ?? null,
        serverName,
        checkServerIdentity: (_sent, certificate) => checkServerIdentity(expected, certificate),
      },
    };
  }
  if (!isLoopback(at.host) && options.insecurePlaintext !== true) {
    throw new UserError(
      `refusing plaintext to ${address}: give ${names.ca} (and ${names.cert} with ${names.key} if the agent asks for a ` +
        'client certificate), or --insecure-plaintext if the network in between is trusted',
      2,
    );
  }
  return { at, tls: undefined };
}
