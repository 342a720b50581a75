import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { test, type TestContext } from 'node:test';
import { BareClient, ErrorReason, framed, parseAddress, type PagewakeError } from '@pagewake/agent-kit';
import { decodeBulkResponse, encodeBulkRequest, Encoding, type BulkResponse } from '@pagewake/proto';
import { startAgent, TOKEN, type TestAgent } from '../../../test/agent.ts';
import { decode, K4, makeMemfd, noise } from '../../../test/guests.ts';
import { readOpen } from '../../../test/conversation.ts';
import { Compressor } from './compressor.ts';

const BUDGET = { timeout: 30_000 };
const PAGES = 256;
const NOTHING = new Uint8Array(0);

/** A peer of the bulk port: what came, and how it ended. */
class Peer {
  readonly came: BulkResponse[] = [];
  readonly ended: Promise<PagewakeError>;
  readonly #client: BareClient;
  #arrived: () => void = () => undefined;

  constructor(t: TestContext, agent: TestAgent, port: number, session: Uint8Array) {
    const { host } = parseAddress(agent.address, 'address');
    const { promise, resolve } = Promise.withResolvers<PagewakeError>();
    this.ended = promise;
    this.#client = new BareClient(
      {
        address: `${host}:${port}`,
        link: {},
        first: encodeBulkRequest({ session, rangeId: 0 }),
        maxMessageBytes: 4 * 1024 * 1024,
        answerWithinMs: 5000,
      },
      {
        onAnswer: () => undefined,
        onMessage: (message) => {
          const response = decodeBulkResponse(Buffer.from(message));
          if (response.error === undefined) this.came.push(response);
          else resolve({ reason: response.error.reason } as PagewakeError);
          this.#arrived();
        },
        onEnd: resolve,
      },
    );
    t.after(() => this.#client.close());
  }

  ask(rangeId: number, firstPage: number, pageCount: number, sparse = false): void {
    const range = { region: 0, firstPage, pageCount };
    this.#client.write(encodeBulkRequest({ session: NOTHING, rangeId, range, sparse }));
  }

  /** Resolves once a range is done. */
  async done(rangeId: number): Promise<readonly BulkResponse[]> {
    while (!this.came.some((r) => r.rangeId === rangeId && r.rangeDone))
      await new Promise<void>((resolve) => (this.#arrived = resolve));
    return this.came.filter((r) => r.rangeId === rangeId);
  }
}

async function opened(t: TestContext, fill: (write: (page: number, bytes: Buffer) => void) => void) {
  const agent = await startAgent(t, { bulkThread: true });
  const file = makeMemfd(t, PAGES * K4);
  fill((page, bytes) => file.write(page * K4, bytes));
  const regions = [{ geometry: { pageSizeBytes: K4, pageCount: PAGES }, fileOffset: 0n }];
  const generation = await agent.serve('vm', { kind: { case: 'file', value: { path: file.path, regions } } });
  const wish = { protocolVersion: 1, vmId: 'vm', generation, token: TOKEN, destinationId: 'd' };
  const { accepted } = await readOpen(agent.pages.open(wish));
  assert(accepted.bulkPort > 0, 'Accepted names no bulk port');
  const { session } = accepted;
  const connect = (named = session): Peer => new Peer(t, agent, accepted.bulkPort, named);
  return { agent, generation, session, connect, bulkPort: accepted.bulkPort };
}

test('the bulk port gives every page of a range, in page order, verified, zeros without a byte', BUDGET, async (t) => {
  const { agent, connect } = await opened(t, (write) => {
    for (let page = 0; page < PAGES; page++) if (page < 64 || page >= 128) write(page, noise(page));
  });
  const peer = connect();
  peer.ask(1, 0, 200);
  peer.ask(2, 200, 56);
  const frames = [...(await peer.done(1)), ...(await peer.done(2))];
  let next = 0;
  for (const { frame } of frames) {
    assert.equal(frame?.firstPage, next);
    const bytes = decode(frame);
    for (let i = 0; i < frame.pageCount; i++) {
      const page = next + i;
      const expected = page < 64 || page >= 128 ? noise(page) : Buffer.alloc(K4);
      assert(bytes.subarray(i * K4, (i + 1) * K4).equals(expected), `page ${page}`);
    }
    if (frame.encoding === Encoding.ZERO) assert.equal(frame.payload.length, 0);
    next += frame.pageCount;
  }
  assert.equal(next, PAGES);
  peer.ask(3, 56, 16, true);
  const [sparse, ...more] = await peer.done(3);
  assert.deepEqual([sparse?.frame?.encoding, sparse?.frame?.pageCount, more.length], [Encoding.SPARSE, 16, 0]);
  const { vms } = await agent.source.list({});
  assert.equal(vms[0]?.pagesServed, BigInt(PAGES + 16));
});

test(
  'a session that was not given, a range out of range and a message that is none are told why',
  BUDGET,
  async (t) => {
    const opening = await opened(t, (write) => write(0, noise(0)));
    assert.equal((await opening.connect(Buffer.alloc(16, 9)).ended).reason, ErrorReason.UNKNOWN_SESSION);
    const second = opening.connect();
    second.ask(1, PAGES - 1, 2);
    assert.equal((await second.ended).reason, ErrorReason.OUT_OF_RANGE);
    const third = connect({ host: '127.0.0.1', port: opening.bulkPort });
    const closed = new Promise((resolve) => third.once('close', resolve));
    third.on('error', () => undefined);
    third.resume();
    third.write(Buffer.from([0, 255, 255, 255, 255, 1]));
    await closed;
  },
);

test('a released and a completed session serve nothing more, and say so', BUDGET, async (t) => {
  const { connect, agent, generation } = await opened(t, (write) => write(0, noise(0)));
  const peer = connect();
  peer.ask(1, 0, 1);
  await peer.done(1);
  await agent.source.release({ vmId: 'vm', generation, force: true });
  assert.equal((await peer.ended).reason, ErrorReason.UNKNOWN_VM);

  const next = await opened(t, (write) => write(0, noise(0)));
  const reader = next.connect();
  reader.ask(1, 0, 1);
  await reader.done(1);
  await next.agent.pages.complete({ session: next.session });
  reader.ask(2, 0, 1);
  assert.equal((await reader.ended).reason, ErrorReason.ALREADY_COMPLETED);
});

test('an empty message is answered by an empty one, to whom is known', BUDGET, async (t) => {
  const { bulkPort, session } = await opened(t, (write) => write(0, noise(0)));
  const socket = connect({ host: '127.0.0.1', port: bulkPort });
  t.after(() => socket.destroy());
  const answer = new Promise<Buffer>((resolve) => socket.once('data', resolve));
  socket.write(Buffer.concat([framed(NOTHING), framed(encodeBulkRequest({ session, rangeId: 0 }))]));
  assert.deepEqual(await answer, Buffer.alloc(5));
});

for (const [link, linkMsPerChunk, ownMsPerChunk, compressed] of [
  ['a link slower than LZ4', 2, 0.1, true],
  ['a link faster than LZ4', 0.2, 0.1, false],
  ['a link that waits for this thread', 0.7, 0.5, false],
] as const)
  test(`${link}: what shrinks goes ${compressed ? 'compressed' : 'as it is'}, also where the host stalls now and then`, () => {
    let nowMs = 0;
    const compressor = new Compressor('auto', () => nowMs);
    let packed = 0;
    for (let chunk = 0; chunk < 4096; chunk++) {
      // 500 MB/s.
      const lz4 = compressor.wants(() => (nowMs += 0.064) > 0);
      if (lz4 && chunk >= 2048) packed++;
      const ownMs = ownMsPerChunk + (lz4 ? 0.5 : 0);
      nowMs += Math.max(ownMs, lz4 ? linkMsPerChunk / 2 : linkMsPerChunk);
      if (chunk % 17 === 0) nowMs += 15;
      compressor.sent(256 * 1024, (lz4 ? 128 : 256) * 1024, ownMs);
    }
    assert.equal(packed > 1792, compressed, `${packed} of 2048`);
    assert.equal(packed < 256, !compressed, `${packed} of 2048`);
  });

test('what buffers take in the beginning is not the link, and does not put LZ4 off', () => {
  let nowMs = 0;
  let memoryBytes = 0;
  const compressor = new Compressor('auto', () => nowMs);
  while (!compressor.wants(() => (nowMs += 0.064) > 0)) {
    nowMs += memoryBytes < 4 * 1024 * 1024 ? 0.1 : 2;
    memoryBytes += 256 * 1024;
    compressor.sent(256 * 1024, 256 * 1024, 0.1);
    assert(memoryBytes < 16 * 1024 * 1024, 'memory that shrinks still goes raw over a slow link');
  }
});

test('how slow things are in the beginning says nothing of the link', () => {
  let nowMs = 0;
  const compressor = new Compressor('auto', () => nowMs);
  let packed = 0;
  for (let chunk = 0; chunk < 1024; chunk++) {
    if (compressor.wants(() => (nowMs += 0.064) > 0)) packed++;
    nowMs += chunk < 8 ? 5 : 0.25;
    compressor.sent(256 * 1024, 256 * 1024, 0.2);
  }
  assert.equal(packed, 0);
});

test('content that does not shrink is looked at now and then only', () => {
  const compressor = new Compressor('auto', () => 0);
  let looks = 0;
  for (let chunk = 0; chunk < 1024; chunk++) {
    compressor.wants(() => {
      looks++;
      return false;
    });
    compressor.sent(256 * 1024, 256 * 1024);
  }
  assert(looks <= 32, `${looks} looks`);
});
