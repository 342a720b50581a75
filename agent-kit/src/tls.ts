import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createSecureContext } from 'node:tls';
import { messageOf, UserError } from './errors.ts';

/** Paths of PEM files, as an option gave them. */
export interface TlsFiles {
  /** Certificates of the authorities that the peer's certificate must come from. */
  readonly tlsCa?: string | undefined;
  /** Our own certificate (chain), and its key. One without the other is an error. */
  readonly tlsCert?: string | undefined;
  readonly tlsKey?: string | undefined;
}

/** What the options are called where they are told apart, e.g. `--tls-cert` or `--source-tls-cert`. */
export interface TlsOptionNames {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

export const TLS_OPTIONS: TlsOptionNames = { ca: '--tls-ca', cert: '--tls-cert', key: '--tls-key' };

export interface TlsMaterial {
  readonly ca: Buffer | null;
  readonly pair: { readonly cert: Buffer; readonly key: Buffer } | null;
}

/** Reads and checks the files now, so that a bad one is an error at start and not at the first connection. */
export function readTls(files: TlsFiles, names: TlsOptionNames = TLS_OPTIONS): TlsMaterial {
  const ca = readPem(files.tlsCa, names.ca);
  const cert = readPem(files.tlsCert, names.cert);
  const key = readPem(files.tlsKey, names.key);
  if ((cert === null) !== (key === null)) {
    const [given, lacking] = cert === null ? [names.key, names.cert] : [names.cert, names.key];
    throw new UserError(`${given} is given without ${lacking}; a certificate and its key belong together`, 2);
  }
  const pair = cert === null || key === null ? null : { cert, key };
  if (pair !== null) {
    check(`${names.cert} ${files.tlsCert ?? ''} and ${names.key} ${files.tlsKey ?? ''}`, () =>
      createSecureContext(pair),
    );
  }
  // Not createSecureContext, which takes a CA file without any usable certificate as "trust nobody", and says nothing.
  if (ca !== null) check(`${names.ca} ${files.tlsCa ?? ''}`, () => new X509Certificate(ca));
  return { ca, pair };
}

function readPem(path: string | undefined, option: string): Buffer | null {
  if (path === undefined) return null;
  try {
    return readFileSync(path);
  } catch (error) {
    throw new UserError(`${option}: cannot read ${path}: ${messageOf(error)}`, 2, { cause: error });
  }
}

function check(what: string, use: () => unknown): void {
  try {
    use();
  } catch (error) {
    throw new UserError(`${what}: not usable for TLS: ${messageOf(error)}`, 2, { cause: error });
  }
}
