/** Links that cannot be, to real servers: the error says in words which option is missing or wrong. */
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { startServer, toServiceError, type ClientLinkOptions, type ServerOptions } from '@pagewake/agent-kit';
import { makeAuthority } from '@pagewake/agent-kit/testing';
import { implement, SourceService } from '@pagewake/proto';
import { connectSource } from './agents.ts';
import { linkTrouble } from './link-trouble.ts';

const BUDGET = { timeout: 20_000 };

const bound = implement(
  SourceService,
  { register: () => ({}), setPaused: () => ({}), list: () => ({}), release: () => ({}) },
  toServiceError,
);

async function serve(t: TestContext, options: Partial<ServerOptions>): Promise<string> {
  const server = await startServer({ listen: '127.0.0.1:0', services: [bound], ...options });
  t.after(() => server.shutdown(0));
  return server.address;
}

async function assertSays(t: TestContext, address: string, options: ClientLinkOptions, says: RegExp): Promise<void> {
  const agent = connectSource({ address, ...options });
  t.after(() => agent.close());
  await assert.rejects(
    agent.call((c, o) => c.list({}, o)),
    (error: unknown) => {
      assert.ok(error instanceof Error);
      assert.match(error.message, says);
      assert.match(error.message, /^the source agent at 127\.0\.0\.1:\d+ does not answer/);
      return true;
    },
  );
}

test(
  'a link that TLS stands in the way of says which option would help, with the raw text behind it',
  BUDGET,
  async (t) => {
    const authority = makeAuthority(t);
    const stranger = makeAuthority(t);
    const pair = authority.issue('127.0.0.1');
    const tlsCa = authority.ca;
    const tls = await serve(t, pair);
    const mtls = await serve(t, { ...pair, tlsCa });
    const plaintext = await serve(t, {});
    const named = await serve(t, authority.issue('source.example'));
    await assertSays(t, tls, {}, /the agent seems to speak TLS: give --tls-ca \(.+\)$/);
    await assertSays(t, mtls, {}, /the agent seems to speak TLS: give --tls-ca \(.+\)$/);
    await assertSays(t, mtls, { tlsCa }, /a client certificate[:,] give --tls-cert and --tls-key \(.+\)$/s);
    await assertSays(t, mtls, { tlsCa, ...stranger.issue('ops') }, /--tls-cert.* from .*authority/);
    await assertSays(t, tls, { tlsCa: stranger.ca }, /its certificate is not from the authority in --tls-ca \(.+\)$/);
    await assertSays(t, named, { tlsCa }, /its certificate is for another name: give that with --server-name/);
    await assertSays(
      t,
      plaintext,
      { tlsCa },
      /the agent seems to speak plaintext: start it with TLS, or leave out --tls-ca/,
    );
  },
);

test('an agent that died in the middle of a call is not taken for one that speaks TLS', () => {
  for (const detail of ['Connection dropped', 'read ECONNRESET', 'Stream removed'])
    assert.equal(linkTrouble(detail, {}), undefined);
});

test('a port where nobody listens has nothing to do with TLS', BUDGET, async (t) => {
  await assertSays(t, '127.0.0.1:1', {}, /ECONNREFUSED.*is it running, and reachable from here\?$/);
});
