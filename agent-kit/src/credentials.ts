/** The client side of a gRPC link: which credentials, which channel options, and that plaintext leaves the host only when told. */
import { Client, credentials, type ChannelCredentials, type ChannelOptions } from '@grpc/grpc-js';
import { formatAddress, isLoopback, parseAddress } from './address.ts';
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
};

export interface ClientLinkOptions extends TlsFiles {
  /** Name to verify in the server's certificate instead of the address' host. */
  readonly serverName?: string | undefined;
  /** Accept plaintext to a host that is not loopback. Default: false. */
  readonly insecurePlaintext?: boolean | undefined;
  /** How the options are called in errors. */
  readonly names?: TlsOptionNames;
}

/** TLS as soon as one TLS file is given; plaintext to loopback, or where it is asked for; else an error that says so. */
export function clientCredentials(address: string, options: ClientLinkOptions = {}): ChannelCredentials {
  const names = options.names ?? TLS_OPTIONS;
  const { host } = parseAddress(address, 'address of the agent');
  const material = readTls(options, names);
  if (material.ca !== null || material.pair !== null) {
    return credentials.createSsl(material.ca, material.pair?.key ?? null, material.pair?.cert ?? null);
  }
  if (!isLoopback(host) && options.insecurePlaintext !== true) {
    throw new UserError(
      `refusing plaintext to ${address}: give ${names.ca} (and ${names.cert} with ${names.key} if the agent asks for a ` +
        'client certificate), or --insecure-plaintext if the network in between is trusted',
      2,
    );
  }
  return credentials.createInsecure();
}

/** A channel to an agent, not yet connected; several clients may share it. The caller closes it. */
export function openChannel(address: string, options: ClientLinkOptions = {}, extra: ChannelOptions = {}): Client {
  const target = formatAddress(parseAddress(address, 'address of the agent'));
  const name: ChannelOptions =
    options.serverName === undefined ? {} : { 'grpc.ssl_target_name_override': options.serverName };
  return new Client(target, clientCredentials(address, options), { ...COMMON_CHANNEL_OPTIONS, ...name, ...extra });
}
