/** The client side of a gRPC link: which credentials, which channel options. */
import { Client, credentials, type ChannelCredentials, type ChannelOptions } from '@grpc/grpc-js';
import { formatAddress } from './address.ts';
import { KEEPALIVE_MS, linkSecurity, MAX_MESSAGE_BYTES, type ClientLinkOptions } from './link-security.ts';

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

/** What a grpc.Client is made of. */
export interface Link {
  readonly target: string;
  readonly credentials: ChannelCredentials;
  readonly options: ChannelOptions;
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
