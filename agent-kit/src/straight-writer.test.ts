import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { test, type TestContext } from 'node:test';
import { StraightWriter, type SendNow } from './straight-writer.ts';

const BUDGET = { timeout: 10_000 };

/** A connection, and everything that comes out at its other end. */
async function connection(t: TestContext): Promise<{ socket: Socket; all: Promise<Buffer> }> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  assert(address !== null && typeof address === 'object');
  const socket = connect(address.port, address.address);
  const [peer] = (await once(server, 'connection')) as [Socket];
  t.after(() => {
    socket.destroy();
    peer.destroy();
    server.close();
  });
  if (socket.connecting) await once(socket, 'connect');
  const chunks: Buffer[] = [];
  peer.on('data', (chunk: Buffer) => chunks.push(chunk));
  return { socket, all: once(peer, 'end').then(() => Buffer.concat(chunks)) };
}

test('what the kernel takes does not come to the stream, and is taken when the write returns', BUDGET, async (t) => {
  const { socket } = await connection(t);
  const sent: string[] = [];
  const writer = new StraightWriter(socket, (_fd, bytes) => {
    sent.push(Buffer.from(bytes).toString());
    return bytes.length;
  });
  let taken = 0;
  assert.equal(
    writer.write(Buffer.from('whole'), () => taken++),
    true,
  );
  assert.deepEqual([sent, taken, socket.bytesWritten], [['whole'], 1, 0]);
});

test(
  'what the kernel leaves goes through the stream, and nothing that is written later overtakes it',
  BUDGET,
  async (t) => {
    const { socket, all } = await connection(t);
    const seen: number[] = [];
    // Says that it took one byte of the first write, which is not sent then.
    const one: SendNow = (fd) => {
      seen.push(fd);
      return seen.length === 1 ? 1 : 0;
    };
    const writer = new StraightWriter(socket, one);
    // The stream keeps what it has, as behind a peer that does not read.
    socket.cork();
    writer.write(Buffer.from('-left'));
    assert.ok(socket.writableLength > 0);
    writer.write(Buffer.from(' over'));
    assert.equal(seen.length, 1, 'it was not asked while something waited');
    socket.end();
    assert.equal((await all).toString(), 'left over');
  },
);

test('without a way to the kernel everything goes through the stream', BUDGET, async (t) => {
  const { socket, all } = await connection(t);
  new StraightWriter(socket, undefined).write(Buffer.from('as ever'));
  socket.end();
  assert.equal((await all).toString(), 'as ever');
});
