/** Why there is no link, in words, where the text of the failure gives it away. */
import { TLS_OPTIONS, type ClientLinkOptions } from '@pagewake/agent-kit';

/** What the texts of grpc-js, Node and OpenSSL have in common over their versions; the first that matches. */
const OF_TLS: readonly (readonly [RegExp, (names: typeof TLS_OPTIONS) => string])[] = [
  [
    /alert certificate required|alert handshake failure/,
    ({ cert, key }) => `it asks for a client certificate: give ${cert} and ${key}`,
  ],
  [
    /alert (unknown ca|bad certificate|certificate unknown)/,
    ({ cert }) => `it does not accept the certificate in ${cert}: is that from its authority?`,
  ],
  [
    /unable to (verify the first|get (local )?issuer) certificate|self[- ]signed certificate/,
    ({ ca }) => `its certificate is not from the authority in ${ca}`,
  ],
  [
    /ERR_TLS_CERT_ALTNAME_INVALID/,
    () => 'its certificate is for another name: give that with --server-name, if it is the right agent',
  ],
  [/certificate has expired/, () => 'its certificate has expired'],
  [
    /wrong version number|packet length too long/,
    ({ ca }) => `the agent seems to speak plaintext: start it with TLS, or leave out ${ca}`,
  ],
];

/** A port where nobody listens, or that is not reached at all: TLS has nothing to do with it. */
const NOT_REACHED = /ECONNREFUSED|EHOSTUNREACH|ENETUNREACH|ETIMEDOUT|ENOTFOUND|EAI_AGAIN|Name resolution/;
/**
 * The other side took the connection and ended it before a first call, without a reason. An agent that dies ends those that were in use, which
 * is told in other words.
 */
const DROPPED = /^No connection established\b.*(Failed to connect|ECONNRESET|EPIPE|Connection dropped|socket hang up)/s;

/** Undefined: the text does not say. */
export function linkTrouble(detail: string, options: ClientLinkOptions): string | undefined {
  const { tlsCa, tlsCert, names = TLS_OPTIONS } = options;
  if (tlsCa !== undefined || tlsCert !== undefined) {
    const known = OF_TLS.find(([pattern]) => pattern.test(detail));
    if (known !== undefined) return known[1](names);
  }
  if (NOT_REACHED.test(detail) || !DROPPED.test(detail)) return undefined;
  if (tlsCert !== undefined) return `it dropped the connection: is ${names.cert} from the authority that it asks for?`;
  if (tlsCa !== undefined) {
    return `it dropped the connection: if it asks for a client certificate, give ${names.cert} and ${names.key}`;
  }
  return `it dropped the connection; the agent seems to speak TLS: give ${names.ca}`;
}
