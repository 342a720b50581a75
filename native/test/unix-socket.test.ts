import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { closeSync, existsSync, lstatSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { once } from 'node:events';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { MemoryFile, UnixConnection, UnixListener } from '../ts/index.ts';
import type { NativeError } from '../ts/index.ts';
import { codeOf, HANG_MS, openDescriptors, PAGE_BYTES, pageOf, temporaryFolder, until } from './support.ts';
import { Toucher } from './toucher.ts';

const options = { timeout: 2 * HANG_MS };

interface Pair {
  readonly client: UnixConnection;
  readonly server: UnixConnection;
}

async function pair(t: TestContext): Promise<Pair> {
  const path = join(temporaryFolder(t), 's');
  const { promise, resolve } = Promise.withResolvers<UnixConnection>();
  const listener = UnixListener.listen(path, resolve);
  const client = UnixConnection.connect(path);
  const server = await promise;
  listener.close();
  t.after(() => {
    client.close();
    server.close();
  });
  return { client, server };
}

interface Received {
  readonly data: Buffer;
  readonly fds: number[];
}

/** Everything until `bytes` have come. */
function receive(connection: UnixConnection, bytes: number): Promise<Received> {
  const { promise, resolve } = Promise.withResolvers<Received>();
  const pieces: Buffer[] = [];
  const fds: number[] = [];
  let length = 0;
  connection.onData((data, more) => {
    pieces.push(data);
    fds.push(...more);
    length += data.length;
    if (length >= bytes) resolve({ data: Buffer.concat(pieces), fds });
  });
  return promise;
}

function ended(connection: UnixConnection): Promise<NativeError | null> {
  const { promise, resolve } = Promise.withResolvers<NativeError | null>();
  connection.onClose(resolve);
  return promise;
}

for (const direction of ['to the listener', 'to the client'] as const) {
  test(`descriptors travel ${direction}, in order, and belong to the receiver`, options, async (t) => {
    const { client, server } = await pair(t);
    const [from, to] = direction === 'to the listener' ? [client, server] : [server, client];
    const memory = MemoryFile.createMemfd('first', PAGE_BYTES);
    const other = MemoryFile.createMemfd('second', 2 * PAGE_BYTES);
    memory.write(pageOf(0x42), 0, PAGE_BYTES, 0);
    from.send(Buffer.from('hello\n'), [memory.fd, other.fd]);
    // What was sent is on its way: the sender's descriptors are its own again.
    memory.close();
    other.close();
    const { data, fds } = await receive(to, 6);
    assert.equal(data.toString(), 'hello\n');
    const [first, second] = fds.map((fd) => MemoryFile.adopt(fd));
    assert.ok(first !== undefined && second !== undefined);
    assert.equal(second.sizeBytes(), 2 * PAGE_BYTES);
    const into = pageOf(0);
    first.read(into, 0, PAGE_BYTES, 0);
    assert.ok(into.equals(pageOf(0x42)));
    const flags = /flags:\s*(\d+)/.exec(readFileSync(`/proc/self/fdinfo/${first.fd}`, 'utf8'))?.[1];
    assert.equal(Number.parseInt(flags ?? '0', 8) & 0o2000000, 0o2000000, 'closed on exec');
    first.close();
    second.close();
  });
}

test('the peer is who the kernel says: our own process, and a child by its pid', options, async (t) => {
  const { client, server } = await pair(t);
  const self = { pid: process.pid, uid: process.getuid?.(), gid: process.getgid?.() };
  assert.deepEqual(server.peer(), self);
  assert.deepEqual(client.peer(), self);
  const toucher = Toucher.start(t);
  const { promise, resolve } = Promise.withResolvers<UnixConnection>();
  const listener = UnixListener.listen(toucher.socket, resolve);
  toucher.say(`send ${toucher.socket} 1`);
  const connection = await promise;
  assert.equal(connection.peer().pid, toucher.pid);
  const { data, fds } = await receive(connection, 1);
  assert.equal(data.toString(), 'x');
  assert.equal(fds.length, 1);
  fds.forEach((fd) => closeSync(fd));
  const end = ended(connection);
  await toucher.quit();
  assert.equal(await end, null, 'the end of the peer is the end of the stream');
  listener.close();
});

test('more descriptors than a message may have end the connection, and none is left open', options, async (t) => {
  const toucher = Toucher.start(t);
  const { promise, resolve } = Promise.withResolvers<UnixConnection>();
  const listener = UnixListener.listen(toucher.socket, resolve);
  await toucher.ask(`send ${toucher.socket} 17`, /^sent/);
  const connection = await promise;
  listener.close();
  const before = openDescriptors();
  connection.onData(() => assert.fail('a part of the descriptors is worth nothing'));
  assert.equal((await ended(connection))?.code, 'EMSGSIZE');
  assert.equal(openDescriptors(), before - 1, 'only the connection was closed');
  const { client } = await pair(t);
  assert.throws(
    () =>
      client.send(
        Buffer.of(1),
        Array.from({ length: 17 }, () => 0),
      ),
    RangeError,
  );
  assert.throws(() => client.send(Buffer.alloc(0), [0]), RangeError);
});

test(
  'what the peer does not take yet waits, with its descriptor, and arrives whole and in order',
  options,
  async (t) => {
    const { client, server } = await pair(t);
    const before = openDescriptors();
    const bytes = randomBytes(4 * 1024 * 1024);
    const memory = MemoryFile.createMemfd('late', 3 * PAGE_BYTES);
    client.send(bytes.subarray(0, bytes.length / 2), []);
    client.send(bytes.subarray(bytes.length / 2), [memory.fd]);
    memory.close();
    const { data, fds } = await receive(server, bytes.length);
    assert.ok(data.equals(bytes));
    assert.equal(fds.length, 1);
    const late = MemoryFile.adopt(fds[0] ?? -1);
    assert.equal(late.sizeBytes(), 3 * PAGE_BYTES);
    late.close();
    await until('no copy of the descriptor left', () => openDescriptors() === before);
  },
);

test('a peer that does not read at all is ENOBUFS, not memory without end', options, async (t) => {
  const { client } = await pair(t);
  const piece = Buffer.alloc(1024 * 1024);
  assert.equal(
    codeOf(() => {
      for (let i = 0; i < 64; i++) client.send(piece, []);
    }),
    'ENOBUFS',
  );
});

test('what the peer said before it closed is read, also where a send has failed meanwhile', options, async (t) => {
  const { client, server } = await pair(t);
  server.send(Buffer.from('last words'), []);
  server.close();
  const end = ended(client);
  const words = receive(client, 10);
  client.send(Buffer.from('too late'), []);
  assert.equal((await words).data.toString(), 'last words');
  assert.equal(await end, null);
  assert.equal(
    codeOf(() => client.send(Buffer.of(1), [])),
    'EBADF',
  );
});

test('closing is idempotent and told to the other side only', options, async (t) => {
  const { client, server } = await pair(t);
  const end = ended(server);
  server.onData(() => assert.fail('nothing was sent'));
  client.onClose(() => assert.fail('whoever closes knows'));
  client.close();
  client.close();
  assert.equal(await end, null);
  assert.equal(client.closed, true);
});

test('the socket file is for its owner alone and goes with the listener', options, (t) => {
  const path = join(temporaryFolder(t), 's');
  const listener = UnixListener.listen(path, () => {});
  assert.equal(lstatSync(path).mode & 0o777, 0o600);
  listener.close();
  listener.close();
  assert.equal(existsSync(path), false);
});

test('a path that somebody listens on is EADDRINUSE and stays his; a stale one is taken over', options, async (t) => {
  const path = join(temporaryFolder(t), 's');
  const first = UnixListener.listen(path, () => {});
  assert.equal(
    codeOf(() => UnixListener.listen(path, () => {})),
    'EADDRINUSE',
  );
  assert.equal(existsSync(path), true);
  // A listener that died leaves its file: here it is kept by another name while it closes.
  renameSync(path, `${path}.kept`);
  first.close();
  renameSync(`${path}.kept`, path);
  assert.equal(
    codeOf(() => UnixConnection.connect(path)),
    'ECONNREFUSED',
  );
  const { promise, resolve } = Promise.withResolvers<void>();
  const second = UnixListener.listen(path, (connection) => {
    connection.close();
    resolve();
  });
  UnixConnection.connect(path).close();
  await promise;
  second.close();
});

test('a file that is no socket is never removed', options, (t) => {
  const path = join(temporaryFolder(t), 'file');
  writeFileSync(path, 'precious');
  assert.equal(
    codeOf(() => UnixListener.listen(path, () => {})),
    'EADDRINUSE',
  );
  assert.equal(readFileSync(path, 'utf8'), 'precious');
});

test('a listener does not remove the file of the one that came after it', options, async (t) => {
  const path = join(temporaryFolder(t), 's');
  const first = UnixListener.listen(path, () => {});
  renameSync(path, `${path}.old`);
  const second = createServer().listen(path);
  await once(second, 'listening');
  first.close();
  assert.equal(existsSync(path), true);
  second.close();
});

test('paths that cannot be are refused by name', options, (t) => {
  const folder = temporaryFolder(t);
  assert.equal(
    codeOf(() => UnixListener.listen(join(folder, 'x'.repeat(120)), () => {})),
    'ENAMETOOLONG',
  );
  assert.equal(
    codeOf(() => UnixListener.listen(join(folder, 'none', 's'), () => {})),
    'ENOENT',
  );
  assert.throws(() => UnixConnection.connect(join(folder, 'nobody')), {
    name: 'NativeError',
    code: 'ENOENT',
    message: /nobody/,
  });
});
