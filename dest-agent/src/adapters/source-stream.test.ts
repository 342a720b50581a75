import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { test, type TestContext } from 'node:test';
import { ErrorReason, framed, startBareServer, type BareConnection, type PagewakeError } from '@pagewake/agent-kit';
import { makeAuthority, OWN_LOOPBACK } from '@pagewake/agent-kit/testing';
import { Encoding, HEAD_ROOM_BYTES, MigrationPhase, putFrameHead } from '@pagewake/proto';
import { handOver, startDest, startVmm } from '../../test/agent.ts';
import { startFakeSource, type FakeSource } from '../../test/fake-source.ts';
import { content, seen } from '../../test/pages.ts';
import { lacking } from '../../test/toucher.ts';
import { BUDGET, until } from '../../test/wait.ts';
import { SourceLink } from './page-source.ts';

const UFFD = { ...BUDGET, skip: lacking('userfaultfd by syscall', 'MISSING on memfd', 'UFFDIO_POISON') };
const PAGES = 512;
const SESSION = Buffer.alloc(16, 1);

/** On the host of the fake source: a lane's port is looked for where its gRPC is. */
async function portOf(t: TestContext, server: Server): Promise<number> {
  server.listen(0, OWN_LOOPBACK);
  await once(server, 'listening');
  t.after(() => server.close());
  const address = server.address();
  return typeof address === 'object' ? (address?.port ?? 0) : 0;
}

/** A port that refuses connections: bound a moment ago, and not any more. */
async function refusing(t: TestContext): Promise<number> {
  const server = createServer();
  const port = await portOf(t, server);
  server.close();
  await once(server, 'close');
  return port;
}

const foreign = (serve: (socket: Socket) => void) => (t: TestContext) =>
  portOf(
    t,
    createServer((socket) => {
      t.after(() => socket.destroy());
      socket.on('error', () => undefined);
      serve(socket);
    }),
  );

/** What of a lane comes back for one question, and over which way. */
async function asked(t: TestContext, source: FakeSource, lane: 'faults' | 'bulk', port: number) {
  const link = new SourceLink(source.address, {});
  const detours: string[] = [];
  const answer = await new Promise<{ id: number; page: number }>((resolve, reject) => {
    const common = { onEnd: reject, onDetour: (why: string) => void detours.push(why) };
    if (lane === 'faults') {
      const stream = link.openFaults(SESSION, port, () => undefined, {
        ...common,
        onResponse: ({ faultId, frame }) => resolve({ id: faultId, page: frame?.firstPage ?? -1 }),
      });
      t.after(() => stream.cancel());
      stream.request([{ faultId: 7, region: 0, page: 3, pageCount: 0 }]);
    } else {
      const stream = link.openBulk(SESSION, port, () => undefined, {
        ...common,
        onResponse: ({ rangeId, frame }) => resolve({ id: rangeId, page: frame?.firstPage ?? -1 }),
      });
      t.after(() => stream.cancel());
      stream.request({ rangeId: 7, region: 0, firstPage: 3, pageCount: 5 });
    }
  });
  return { answer, detours };
}

for (const lane of ['faults', 'bulk'] as const) {
  test(
    `${lane}: a source without a port of its own is asked over gRPC, and nothing is said of it`,
    BUDGET,
    async (t) => {
      const source = await startFakeSource(t, { pages: 16 });
      const { answer, detours } = await asked(t, source, lane, 0);
      assert.deepEqual(answer, { id: 7, page: 3 });
      assert.deepEqual(detours, []);
    },
  );

  for (const [what, port] of [
    ['refuses', refusing],
    ['closes', foreign((socket) => socket.destroy())],
    ['is another program’s', foreign((socket) => socket.write('220 mail ready\r\n'))],
    ['is silent', foreign(() => undefined)],
  ] as const)
    test(`${lane}: where the port ${what} what was asked comes over gRPC, and that is said`, BUDGET, async (t) => {
      const source = await startFakeSource(t, { pages: 16 });
      const { answer, detours } = await asked(t, source, lane, await port(t));
      assert.deepEqual(answer, { id: 7, page: 3 });
      assert.equal(detours.length, 1);
    });
}

/** Admits everybody; answers the first question with page 7, all zero. */
function honest(connection: BareConnection) {
  let known = false;
  return {
    onMessage: () => {
      if (known) return;
      known = true;
      connection.admit();
      const head = { id: 1, done: false, queueNs: 0, readNs: 0, encodeNs: 0, receivedAtMs: 0 };
      const frame = { region: 0, firstPage: 7, pageCount: 1, encoding: Encoding.ZERO, checksum: 0 };
      const message = Buffer.alloc(HEAD_ROOM_BYTES);
      const start = putFrameHead(message, message.length, 0, { ...head, ...frame });
      connection.write(framed(message.subarray(start)));
    },
    onRead: () => undefined,
    onDrain: () => undefined,
    onGarbage: () => connection.end(),
    onClose: () => undefined,
  };
}

test('pages go over TLS where the link has it, and to no source of another authority', BUDGET, async (t) => {
  const authority = makeAuthority(t);
  const at = { host: '127.0.0.1', port: 0 };
  const server = await startBareServer({ ...authority.issue('127.0.0.1'), at, maxMessageBytes: 1024 }, honest);
  t.after(() => server.close());
  const tried = (tlsCa: string): Promise<number | string> =>
    new Promise((resolve) => {
      const stream = new SourceLink('127.0.0.1:1', { tlsCa }).openFaults(SESSION, server.port, () => undefined, {
        onResponse: ({ frame }) => resolve(frame?.firstPage ?? -1),
        onEnd: (error: PagewakeError) => resolve(error.reasonName),
        onDetour: () => resolve('over gRPC'),
      });
      t.after(() => stream.cancel());
    });
  assert.equal(await tried(authority.ca), 7);
  assert.equal(await tried(makeAuthority(t).ca), 'SOURCE_LOST');
});

test(
  'a port that lets us go before it has answered, as a crowded one does, is tried again before it is given up',
  BUDGET,
  async (t) => {
    const behind = await startBareServer({ at: { host: OWN_LOOPBACK, port: 0 }, maxMessageBytes: 1024 }, honest);
    t.after(() => behind.close());
    let turnedAway = 0;
    const crowded = await foreign((socket) => {
      if (turnedAway++ < 2) return void socket.destroy();
      const inner = connect({ host: OWN_LOOPBACK, port: behind.port });
      inner.on('error', () => undefined);
      socket.pipe(inner).pipe(socket);
    })(t);
    const source = await startFakeSource(t, { pages: 16 });
    const { answer, detours } = await asked(t, source, 'faults', crowded);
    assert.deepEqual(answer, { id: 1, page: 7 });
    assert.deepEqual(detours, []);
    assert.equal(source.streams.faults, 0);
  },
);

test('a guest whose source has ports that nobody reaches gets every page over gRPC', UFFD, async (t) => {
  const source = await startFakeSource(t, {
    pages: PAGES,
    accepted: { faultPort: await refusing(t), bulkPort: await refusing(t) },
    bulk: () => undefined,
  });
  const dest = await startDest(t);
  const { vmmSocket } = await dest.start(source.address);
  const vmm = await startVmm(t, { pages: PAGES });
  handOver(vmm, vmmSocket);
  assert.deepEqual(await vmm.message(), { type: 'ready' });
  assert.deepEqual(await vmm.touch(0, 300), seen(content(300)));
  // Each lane finds out for itself, and the faults' may be the first by seconds.
  await until('bulk comes over gRPC as well', () => source.streams.bulk === 1);
  assert.deepEqual(source.streams, { faults: 1, bulk: 1 });
  source.release();
  await dest.phase('m', MigrationPhase.COMPLETED);
});

test('a source that answered and then closes is lost, and opened again', UFFD, async (t) => {
  const at = { host: OWN_LOOPBACK, port: 0 };
  const server = await startBareServer({ at, maxMessageBytes: 1024 }, (connection) => ({
    ...honest(connection),
    onMessage: () => {
      connection.admit();
      connection.end(framed(new Uint8Array(0)));
    },
  }));
  t.after(() => server.close());
  const accepted = { faultPort: server.port };
  const source = await startFakeSource(t, { pages: PAGES, accepted, bulk: () => undefined, fault: () => undefined });
  const dest = await startDest(t);
  const { vmmSocket } = await dest.start(source.address);
  const vmm = await startVmm(t, { pages: PAGES });
  handOver(vmm, vmmSocket);
  const { error } = await dest.phase('m', MigrationPhase.INTERRUPTED);
  assert.equal(error?.reason, ErrorReason.SOURCE_LOST);
  await until('it is opened again', () => source.opens.length > 1);
});
