/** How this agent reaches a source agent: what its options say, under the names that they have here. */
import type { ClientLinkOptions } from '../kit.ts';
import type { SourceCredentials } from '../lanes/messages.ts';

export function linkOptions(credentials: SourceCredentials): ClientLinkOptions {
  return {
    tlsCa: credentials.tlsCa,
    tlsCert: credentials.tlsCert,
    tlsKey: credentials.tlsKey,
    serverName: credentials.serverName,
    insecurePlaintext: credentials.allowPlaintext,
    names: { ca: '--source-tls-ca', cert: '--source-tls-cert', key: '--source-tls-key' },
  };
}
