import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { createClient, implement, SourceService } from '@pagewake/proto';
import { makeAuthority } from '../test/index.ts';
import { openChannel } from './credentials.ts';
import { isUnreachable } from './errors.ts';
import type { ClientLinkOptions } from './link-security.ts';
import { fromServiceError, toServiceError } from './service-errors.ts';
import { startServer, type RunningServer, type ServerOptions } from './server.ts';
import { readTls } from './tls.ts';

const BUDGET = { timeout: 20_000 };

const bound = implement(
  SourceService,
  { register: () => ({}), setPaused: () => ({}), list: () => ({ vms: [{ vmId: 'seen' }] }), release: () => ({}) },
  toServiceError,
);

async function serve(t: TestContext, options: Partial<ServerOptions>): Promise<RunningServer> {
  const server = await startServer({ listen: '127.0.0.1:0', services: [bound], ...options });
  t.after(() => server.shutdown(0));
  return server;
}

/** "seen" if a call went through, "refused" if there was no way to the server. */
async function call(t: TestContext, address: string, options: ClientLinkOptions): Promise<string | undefined> {
  const channel = openChannel(address, options);
  t.after(() => channel.close());
  try {
    return (await createClient(SourceService, channel).list({}, { timeoutMs: 5000 })).vms[0]?.vmId;
  } catch (error) {
    assert(isUnreachable(fromServiceError(error)), String(error));
    return 'refused';
  }
}

test('TLS: who trusts the authority and finds its name comes in, plaintext and strangers do not', BUDGET, async (t) => {
  const authority = makeAuthority(t);
  const stranger = makeAuthority(t);
  const server = await serve(t, authority.issue('127.0.0.1'));
  assert.equal(server.security, 'tls');
  assert.equal(await call(t, server.address, { tlsCa: authority.ca }), 'seen');
  assert.equal(await call(t, server.address, { tlsCa: stranger.ca }), 'refused');
  assert.equal(await call(t, server.address, {}), 'refused');
});

test('a server under another name is accepted only by that name', BUDGET, async (t) => {
  const authority = makeAuthority(t);
  const server = await serve(t, authority.issue('source.example'));
  assert.equal(await call(t, server.address, { tlsCa: authority.ca }), 'refused');
  assert.equal(await call(t, server.address, { tlsCa: authority.ca, serverName: 'source.example' }), 'seen');
});

test('mTLS: only a client with a certificate of the authority comes in', BUDGET, async (t) => {
  const authority = makeAuthority(t);
  const stranger = makeAuthority(t);
  const server = await serve(t, { ...authority.issue('127.0.0.1'), tlsCa: authority.ca });
  assert.equal(server.security, 'mtls');
  assert.equal(await call(t, server.address, { tlsCa: authority.ca, ...authority.issue('client') }), 'seen');
  assert.equal(await call(t, server.address, { tlsCa: authority.ca }), 'refused');
  assert.equal(await call(t, server.address, { tlsCa: authority.ca, ...stranger.issue('client') }), 'refused');
});

test('TLS lets a server listen beyond loopback without the plaintext flag', BUDGET, async (t) => {
  const authority = makeAuthority(t);
  const server = await serve(t, { listen: '0.0.0.0:0', ...authority.issue('127.0.0.1') });
  assert.equal(await call(t, `127.0.0.1:${String(server.port)}`, { tlsCa: authority.ca }), 'seen');
});

test('unusable TLS files are errors at start that name option and file', BUDGET, async (t) => {
  const authority = makeAuthority(t);
  const { tlsCert, tlsKey } = authority.issue('one.example');
  const other = authority.issue('two.example');
  const text = join(dirname(tlsCert), 'text.pem');
  writeFileSync(text, 'hello');
  const broken = join(dirname(tlsCert), 'broken.pem');
  writeFileSync(broken, '-----BEGIN CERTIFICATE-----\nnot base64!\n-----END CERTIFICATE-----\n');
  assert.throws(() => readTls({ tlsCert }), /--tls-cert is given without --tls-key/);
  assert.throws(() => readTls({ tlsKey }), /--tls-key is given without --tls-cert/);
  assert.throws(
    () => readTls({ tlsCert: '/nowhere/c.pem', tlsKey }),
    /--tls-cert: cannot read \/nowhere\/c\.pem: ENOENT/,
  );
  assert.throws(() => readTls({ tlsCa: text }), /--tls-ca .*text\.pem: not usable/);
  assert.throws(() => readTls({ tlsCa: broken }), /--tls-ca .*broken\.pem: not usable/);
  assert.throws(
    () => readTls({ tlsCert, tlsKey: other.tlsKey }),
    /one\.example\.pem and --tls-key .*two\.example\.key: not usable/,
  );
  await assert.rejects(
    serve(t, { tlsCa: authority.ca }),
    /--tls-ca asks for client certificates, which needs --tls-cert/,
  );
});
