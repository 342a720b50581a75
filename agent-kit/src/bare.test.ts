import assert from 'node:assert/strict';
import { connect, createServer } from 'node:net';
import { test, type TestContext } from 'node:test';
import { makeAuthority } from '../test/index.ts';
import { BareClient } from './bare-client.ts';
import { startBareServer, type BareConnection, type BareServer } from './bare-server.ts';
import type { ClientLinkOptions } from './credentials.ts';
import { ErrorReason, PagewakeError } from './errors.ts';
import { framed, MessageReader } from './message-reader.ts';
import type { TlsFiles } from './tls.ts';

const BUDGET = { timeout: 20_000 };
const LOCAL = '127.0.0.1';

/** Says everything back. */
async function echo(t: TestContext, tls: TlsFiles = {}, silenceMs = 10_000): Promise<BareServer> {
  const at = { host: LOCAL, port: 0 };
  const options = { ...tls, at, maxMessageBytes: 1024 * 1024, silenceMs, highWaterMarkBytes: 65_536 };
  const server = await startBareServer(options, (connection: BareConnection) => ({
    onMessage: (message) => {
      if (message.toString() === 'end') connection.end();
      else connection.write(framed(message));
    },
    onDrain: () => undefined,
    onClose: () => undefined,
  }));
  t.after(() => server.close());
  return server;
}

interface Heard {
  readonly client: BareClient;
  readonly first: Promise<Buffer>;
  readonly ended: Promise<PagewakeError>;
}

function call(t: TestContext, port: number, link: ClientLinkOptions = {}): Heard {
  const first = Promise.withResolvers<Buffer>();
  const ended = Promise.withResolvers<PagewakeError>();
  const client = new BareClient(
    { address: `${LOCAL}:${port}`, link, connectTimeoutMs: 5000 },
    {
      onConnect: () => undefined,
      onMessage: (message) => first.resolve(Buffer.from(message)),
      onEnd: ended.resolve,
    },
  );
  t.after(() => client.close());
  return { client, first: first.promise, ended: ended.promise };
}

async function answered(t: TestContext, port: number, link: ClientLinkOptions): Promise<string> {
  const { client, first, ended } = call(t, port, link);
  client.write(Buffer.from('hello'));
  return Promise.race([first.then(() => 'answered'), ended.then((error) => error.reasonName)]);
}

test(
  'a message is what was written, of any size, and what is written before the connection is there goes first',
  BUDGET,
  async (t) => {
    const server = await echo(t);
    for (const length of [1, 5, 65_536, 1024 * 1024]) {
      const { client, first } = call(t, server.port);
      const message = Buffer.alloc(length, length % 251);
      client.write(message);
      assert((await first).equals(message), `${length} bytes`);
    }
  },
);

test(
  'TLS and mTLS: who trusts the authority and has its certificate is answered, strangers and plaintext are not',
  BUDGET,
  async (t) => {
    const authority = makeAuthority(t);
    const stranger = makeAuthority(t);
    const own = authority.issue('client');
    const tls = await echo(t, authority.issue(LOCAL));
    assert.equal(await answered(t, tls.port, { tlsCa: authority.ca }), 'answered');
    assert.notEqual(await answered(t, tls.port, { tlsCa: stranger.ca }), 'answered');
    const mtls = await echo(t, { ...authority.issue(LOCAL), tlsCa: authority.ca });
    assert.equal(await answered(t, mtls.port, { tlsCa: authority.ca, ...own }), 'answered');
    assert.notEqual(await answered(t, mtls.port, { tlsCa: authority.ca }), 'answered');
    assert.notEqual(await answered(t, mtls.port, { tlsCa: authority.ca, ...stranger.issue('client') }), 'answered');
  },
);

test('nobody there is SOURCE_UNREACHABLE; an end after that is SOURCE_LOST', BUDGET, async (t) => {
  const gone = createServer();
  await new Promise<void>((resolve) => gone.listen(0, LOCAL, resolve));
  const address = gone.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  await new Promise((resolve) => gone.close(resolve));
  assert.equal((await call(t, port).ended).reason, ErrorReason.SOURCE_UNREACHABLE);
  const server = await echo(t);
  const { client, ended } = call(t, server.port);
  client.write(Buffer.from('end'));
  assert.equal((await ended).reason, ErrorReason.SOURCE_LOST);
});

test('who says nothing, or more than a message may have, is let go', BUDGET, async (t) => {
  const server = await echo(t, {}, 200);
  for (const bytes of [Buffer.alloc(0), Buffer.from([0, 0xff, 0xff, 0xff, 0xff]), Buffer.from([1, 0, 0, 0, 1, 9])]) {
    const socket = connect({ host: LOCAL, port: server.port });
    const closed = new Promise((resolve) => socket.once('close', resolve));
    socket.on('error', () => undefined);
    socket.resume();
    if (bytes.length > 0) socket.write(bytes);
    await closed;
  }
});

test('messages are found wherever the stream is cut', () => {
  const messages = [Buffer.alloc(0), Buffer.from('a'), Buffer.alloc(300, 7), Buffer.alloc(0), Buffer.from('end')];
  const stream = Buffer.concat(messages.map((message) => framed(message)));
  for (let piece = 1; piece <= stream.length; piece++) {
    const found: Buffer[] = [];
    const reader = new MessageReader(1024, (message) => found.push(Buffer.from(message)));
    for (let at = 0; at < stream.length; at += piece) reader.push(stream.subarray(at, at + piece));
    assert.deepEqual(found, messages, `pieces of ${piece}`);
  }
  const reader = new MessageReader(8, () => undefined);
  assert.throws(() => reader.push(framed(Buffer.alloc(9))), PagewakeError);
});
