/** The client side of a gRPC link: which credentials, which channel options, and that plaintext leaves the host only when told. */
import { isIP } from 'node:net';
import { checkServerIdentity, type PeerCertificate } from 'node:tls';
import { Client, credentials, type ChannelCredentials, type ChannelOptions } from '@grpc/grpc-js';
import { formatAddress, isLoopback, parseAddress, type HostPort } from './address.ts';
import { UserError } from './errors.ts';
import { readTls, TLS_OPTIONS, type TlsFiles, type TlsOptionNames } from './tls.ts';

/** Both directions. A frame is at most 4 MiB (a bulk range, uncompressed) plus its few fields. */
export const MAX_MESSAGE_BYTES = 16 * 1024 * 1024;
export const KEEPALIVE_MS = 10_000;

/** Server and client. A peer that vanished without a word is noticed after two keepalives. */
export const COMMON_CHANNEL_OPTIONS: Readonly<ChannelOptions> = {
  'grpc.max_receive_message_length': MAX_MESSAGE_BYTES,
  'grpc.max_send_message_length': MAX_MESSAGE_BYTES,
  'grpc.keepalive_time_ms': KEEPALIVE_MS,
  'grpc.keepalive_timeout_ms': KEEPALIVE_MS,
  'grpc.keepalive_permit_without_calls': 1,
  // By default grpc-js waits up to two minutes before it connects again: a guest would stall that long after its link is back.
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 2000,
};

export interface ClientLinkOptions extends TlsFiles {
  /** Name to verify in the server's certificate instead of the address' host. */
  readonly serverName?: string | undefined;
  /** Accept plaintext to a host that is not loopback. Default: false. */
  readonly insecurePlaintext?: boolean | undefined;
  /** How the options are called in errors. */
  readonly names?: TlsOptionNames;
}

/** What a grpc.Client is made of. */
export interface Link {
  readonly target: string;
  readonly credentials: ChannelCredentials;
  readonly options: ChannelOptions;
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

export function clientLink(address: string, options: ClientLinkOptions = {}): Link {
  const { at, tls } = linkSecurity(address, options);
  const target = formatAddress(at);
  if (tls === undefined) {
    return { target, credentials: credentials.createInsecure(), options: { ...COMMON_CHANNEL_OPTIONS } };
  }
  const { ca, cert, key, serverName, checkServerIdentity: check } = tls;
  return {
    target,
    credentials: credentials.createSsl(ca, key, cert, { checkServerIdentity: check }),
    options: { ...COMMON_CHANNEL_OPTIONS, 'grpc.ssl_target_name_override': serverName },
  };
}

/** A channel to an agent, not yet connected; several clients may share it. The caller closes it. */
export function openChannel(address: string, options: ClientLinkOptions = {}, extra: ChannelOptions = {}): Client {
  const link = clientLink(address, options);
  return new Client(link.target, link.credentials, { ...link.options, ...extra });
}
