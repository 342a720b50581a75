import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

export interface Authority {
  /** Path of the authority's certificate. */
  readonly ca: string;
  /** A certificate for `name` (a DNS name or IPv4 address), signed by the authority. */
  issue(name: string): { readonly tlsCert: string; readonly tlsKey: string };
}

/** A certificate authority of its own, made by openssl in a directory that goes with the test. */
export function makeAuthority(t: TestContext): Authority {
  const dir = mkdtempSync(join(tmpdir(), 'pagewake-tls-'));
  t.after(() => rmSync(dir, { recursive: true }));
  const at = (file: string): string => join(dir, file);
  const openssl = (...args: string[]): void => {
    execFileSync('openssl', args, { stdio: ['ignore', 'ignore', 'pipe'] });
  };
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  openssl(
    'req',
    '-x509',
    ...key,
    '-keyout',
    at('ca.key'),
    '-out',
    at('ca.pem'),
    '-days',
    '2',
    '-subj',
    '/CN=test authority',
  );
  return {
    ca: at('ca.pem'),
    issue(name) {
      const tlsKey = at(`${name}.key`);
      const tlsCert = at(`${name}.pem`);
      const kind = /^[\d.]+$/.test(name) ? 'IP' : 'DNS';
      writeFileSync(at(`${name}.ext`), `subjectAltName=${kind}:${name}\n`);
      openssl('req', ...key, '-keyout', tlsKey, '-out', at(`${name}.csr`), '-subj', `/CN=${name}`);
      const signed = ['-CA', at('ca.pem'), '-CAkey', at('ca.key'), '-CAcreateserial', '-days', '2'];
      openssl('x509', '-req', '-in', at(`${name}.csr`), ...signed, '-extfile', at(`${name}.ext`), '-out', tlsCert);
      return { tlsCert, tlsKey };
    },
  };
}
