import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { test, type TestContext } from 'node:test';
import { makeAuthority } from '../test/index.ts';
import { BareClient } from './bare-client.ts';
import { networkOf, startBareServer, type BareConnection, type BareServer } from './bare-server.ts';
import type { ClientLinkOptions } from './link-security.ts';
import { ErrorReason, PagewakeError } from './errors.ts';
import { framed, MessageReader } from './message-reader.ts';
import type { TlsFiles } from './tls.ts';

const BUDGET = { timeout: 20_000 };
const LOCAL = '127.0.0.1';

const FIRST = 'let me in';
const GARBAGE = 'no message';

/** Admits who says FIRST, after a moment; then says everything back. */
async function echo(t: TestContext, tls: TlsFiles = {}, strangerMs = 10_000): Promise<BareServer> {
  const at = { host: LOCAL, port: 0 };
  const options = { ...tls, at, maxMessageBytes: 1024 * 1024, strangerMs };
  const server = await startBareServer(options, (connection: BareConnection) => {
    let known = false;
    return {
      onMessage: (message) => {
        const text = message.length < 64 ? message.toString() : '';
        if (!known) {
          known = true;
          if (text === FIRST) setTimeout(() => connection.admit(), 20);
          else if (text !== 'nothing is said to this') connection.end(framed(Buffer.from('refused')));
        } else if (text === 'end') connection.end();
        else connection.write(framed(message));
      },
      onRead: () => undefined,
      onDrain: () => undefined,
      onGarbage: () => connection.end(framed(Buffer.from(GARBAGE))),
      onClose: () => undefined,
    };
  });
  t.after(() => server.close());
  return server;
}

interface Heard {
  readonly client: BareClient;
  readonly answer: Promise<void>;
  readonly first: Promise<Buffer>;
  readonly ended: Promise<PagewakeError>;
}

function call(t: TestContext, port: number, link: ClientLinkOptions = {}, answerWithinMs = 5000): Heard {
  const answer = Promise.withResolvers<void>();
  const first = Promise.withResolvers<Buffer>();
  const ended = Promise.withResolvers<PagewakeError>();
  const client = new BareClient(
    {
      address: `${LOCAL}:${port}`,
      link,
      first: Buffer.from(FIRST),
      maxMessageBytes: 1024 * 1024,
      answerWithinMs,
    },
    {
      onAnswer: answer.resolve,
      onMessage: (message) => first.resolve(Buffer.from(message)),
      onEnd: ended.resolve,
    },
  );
  t.after(() => client.close());
  return { client, answer: answer.promise, first: first.promise, ended: ended.promise };
}

async function answered(t: TestContext, port: number, link: ClientLinkOptions): Promise<string> {
  const { client, first, ended } = call(t, port, link);
  client.write(Buffer.from('hello'));
  return Promise.race([first.then(() => 'answered'), ended.then((error) => error.reasonName)]);
}

test(
  'a message is what was written, of any size, and what is written before one is known waits until one is',
  BUDGET,
  async (t) => {
    const server = await echo(t);
    for (const length of [1, 5, 65_536, 1024 * 1024]) {
      const { client, first, answer } = call(t, server.port);
      const message = Buffer.alloc(length, length % 251);
      // Who is not known yet has no long messages.
      if (length > 4096) await answer;
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

for (const [name, serve] of [
  ['closes', (socket: Socket) => socket.destroy()],
  ['says nothing', () => undefined],
  ['greets in its own way', (socket: Socket) => socket.write('SSH-2.0-OpenSSH_9.2\r\n')],
  ['speaks HTTP/2', (socket: Socket) => socket.write(Buffer.from('000012040000000000000300000064', 'hex'))],
] as const)
  test(`a port where another program ${name} is SOURCE_UNREACHABLE`, BUDGET, async (t) => {
    const other = createServer((socket) => {
      socket.on('error', () => undefined);
      t.after(() => socket.destroy());
      serve(socket);
    });
    await new Promise<void>((resolve) => other.listen(0, LOCAL, resolve));
    t.after(() => other.close());
    const address = other.address();
    const port = typeof address === 'object' && address !== null ? address.port : 0;
    assert.equal((await call(t, port, {}, 300).ended).reason, ErrorReason.SOURCE_UNREACHABLE);
  });

/** What a server says to these bytes until it closes. */
async function answerTo(port: number, bytes: Buffer): Promise<string> {
  const socket = connect({ host: LOCAL, port });
  const closed = new Promise((resolve) => socket.once('close', resolve));
  let text = '';
  socket.on('error', () => undefined);
  socket.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')));
  if (bytes.length > 0) socket.write(bytes);
  await closed;
  return text;
}

test('who says nothing, signs of life only, or what is not answered for is let go after a while', BUDGET, async (t) => {
  const server = await echo(t, {}, 200);
  for (const bytes of [Buffer.alloc(0), Buffer.alloc(5), framed(Buffer.from('nothing is said to this'))])
    assert.equal(await answerTo(server.port, bytes), '');
});

test('strangers of one IPv6 /64 are one host’s, and no two IPv4 addresses are', () => {
  for (const [address, network] of [
    ['192.0.2.7', '192.0.2.7'],
    ['::ffff:192.0.2.7', '::ffff:192.0.2.7'],
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2'],
    ['2001:db8:1:2::9', '2001:db8:1:2'],
    ['2001:db8::9', '2001:db8:0:0'],
    ['fe80::1%eth0', 'fe80:0:0:0'],
    ['::1', '0:0:0:0'],
  ] as const)
    assert.equal(networkOf(address), network);
});

test('a stranger’s first message is short, and what is no message is told so', BUDGET, async (t) => {
  const server = await echo(t);
  assert.match(await answerTo(server.port, Buffer.from([0, 0, 0, 0x10, 1])), new RegExp(GARBAGE));
  assert.match(await answerTo(server.port, Buffer.from([1, 0, 0, 0, 1, 9])), new RegExp(GARBAGE));
  assert.match(await answerTo(server.port, Buffer.alloc(5 * 300)), new RegExp(GARBAGE));
  assert.match(await answerTo(server.port, framed(Buffer.from('who?'))), /refused/);
});

for (const secured of [false, true])
  test(
    `strangers make room for who comes after them${secured ? ', in the middle of TLS too' : ''}; who is known stays`,
    BUDGET,
    async (t) => {
      const authority = secured ? makeAuthority(t) : undefined;
      const server = await echo(t, authority?.issue(LOCAL));
      const link = authority ? { tlsCa: authority.ca } : {};
      const known = call(t, server.port, link);
      await known.answer;
      const strangers: Promise<unknown>[] = [];
      for (let n = 0; n < 200; n++) {
        const socket = connect({ host: LOCAL, port: server.port });
        socket.on('error', () => undefined);
        socket.resume();
        t.after(() => socket.destroy());
        strangers.push(new Promise((resolve) => socket.once('close', resolve)));
      }
      await Promise.all(strangers.slice(0, 100));
      await call(t, server.port, link).answer;
      known.client.write(Buffer.from('still here'));
      assert.equal((await known.first).toString(), 'still here');
    },
  );

test(
  'strangers of one host do not crowd out one of another, however long that one has been there',
  BUDGET,
  async (t) => {
    const server = await echo(t);
    const patient = connect({ host: LOCAL, port: server.port, localAddress: '127.0.0.2' });
    t.after(() => patient.destroy());
    await once(patient, 'connect');
    const crowd: Promise<unknown>[] = [];
    for (let n = 0; n < 200; n++) {
      const socket = connect({ host: LOCAL, port: server.port });
      socket.on('error', () => undefined).resume();
      t.after(() => socket.destroy());
      crowd.push(once(socket, 'close'));
    }
    await Promise.all(crowd.slice(0, 130));
    patient.write(framed(Buffer.from(FIRST)));
    patient.write(framed(Buffer.from('still here')));
    const [said] = (await once(patient, 'data')) as [Buffer];
    assert.deepEqual(said, framed(Buffer.from('still here')));
  },
);

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

test('exercises go there and back as often as asked, and stop with the first message', BUDGET, async (t) => {
  let empties = 0;
  const waiting = Promise.withResolvers<void>();
  const server = createServer((socket) => {
    t.after(() => socket.destroy());
    const reader = new MessageReader(1024, (message) => {
      if (message.length > 0) return;
      // One for the question whether somebody is there, and ten.
      if (++empties === 11) waiting.resolve();
      socket.write(framed(new Uint8Array(0)));
    });
    socket.on('data', (chunk: Buffer) => reader.push(chunk)).on('error', () => undefined);
  });
  t.after(() => server.close());
  await new Promise<void>((resolve) => server.listen(0, LOCAL, resolve));
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  const connectWith = (exercises: number, onAnswer: (client: () => BareClient) => void): BareClient => {
    const client: BareClient = new BareClient(
      {
        ...{ address: `${LOCAL}:${port}`, link: {}, first: Buffer.from(FIRST), maxMessageBytes: 1024 },
        ...{ answerWithinMs: 5000, exercises },
      },
      { onAnswer: () => onAnswer(() => client), onMessage: () => undefined, onEnd: () => undefined },
    );
    t.after(() => client.close());
    return client;
  };
  connectWith(10, () => undefined);
  await waiting.promise;
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(empties, 11);
  const answered = Promise.withResolvers<void>();
  connectWith(1_000_000, (client) => {
    client().write(Buffer.from('a question'));
    answered.resolve();
  });
  await answered.promise;
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(empties, 12);
});
