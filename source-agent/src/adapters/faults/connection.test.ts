import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { ErrorReason } from '@pagewake/agent-kit';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { Encoding, type FaultsRequestSchema } from '@pagewake/proto';
import { BareConnection } from '../../../test/bare.ts';
import { decode, K4, makeMemfd, noise } from '../../../test/guests.ts';
import { memfd, mixedMemory, mixedPage, read, region, SMALL_PAGES, type Reading } from '../../../test/reading.ts';

const BUDGET = { timeout: 30_000 };

async function reading(
  t: TestContext,
  memory = mixedMemory(t),
): Promise<Reading & { connect: () => Promise<BareConnection> }> {
  const opened = await read(t, memory);
  return { ...opened, connect: () => BareConnection.open(t, opened.faultPort) };
}

test('faults are answered in the order in which they were asked, each with its page and its id', BUDGET, async (t) => {
  const { session, connect } = await reading(t);
  const lane = await connect();
  lane.ask({
    session,
    faults: [
      { faultId: 7, page: 3 },
      { faultId: 8, page: 2 },
    ],
  });
  lane.ask({ faults: [{ faultId: 9, page: SMALL_PAGES - 1 }] });
  for (const [faultId, page] of [
    [7, 3],
    [8, 2],
    [9, SMALL_PAGES - 1],
  ] as const) {
    const answer = await lane.next();
    assert.equal(answer?.faultId, faultId);
    assert.deepEqual(decode(answer.frame), mixedPage(page));
    assert((answer.frame?.timings?.receivedAtMs ?? 0) > 0);
  }
});

test(
  'a fault that is asked for with a run of neighbours goes first; the run comes in page order and is covered exactly',
  BUDGET,
  async (t) => {
    const file = makeMemfd(t, 64 * K4);
    for (let page = 0; page < 64; page++) file.write(page * K4, noise(page));
    const { session, connect } = await reading(t, memfd(file.path, region(K4, 64)));
    const lane = await connect();
    lane.ask({
      session,
      faults: [
        { faultId: 1, page: 0, pageCount: 40 },
        { faultId: 2, page: 50 },
      ],
    });
    const first = await lane.next();
    assert.equal(first?.faultId, 2);
    assert.deepEqual(decode(first.frame), noise(50));
    let next = 0;
    while (next < 40) {
      const { faultId, frame } = (await lane.next()) ?? assert.fail('closed');
      assert.equal(faultId, 1);
      assert.equal(frame?.firstPage, next);
      const bytes = decode(frame);
      for (let i = 0; i < frame.pageCount; i++) assert.deepEqual(bytes.subarray(i * K4, (i + 1) * K4), noise(next + i));
      next += frame.pageCount;
    }
    assert.equal(next, 40);
  },
);

test('the same neighbours come over gRPC', BUDGET, async (t) => {
  const opened = await reading(t);
  const lane = opened.faults();
  lane.send({
    $typeName: 'pagewake.v1.FaultsRequest',
    session: new Uint8Array(0),
    faults: [
      { $typeName: 'pagewake.v1.PageFault', faultId: 1, region: 0, page: 0, pageCount: 8 },
      { $typeName: 'pagewake.v1.PageFault', faultId: 2, region: 0, page: 20, pageCount: 0 },
    ],
  });
  assert.equal((await lane.next()).faultId, 2);
  let next = 0;
  while (next < 8) {
    const { frame } = await lane.next();
    assert.equal(frame?.firstPage, next);
    next += frame.pageCount;
  }
  await lane.end();
});

test('zeros have no payload, a page of 2 MiB is one frame', BUDGET, async (t) => {
  const { session, connect } = await reading(t);
  const lane = await connect();
  lane.ask({
    session,
    faults: [
      { faultId: 1, page: 1 },
      { faultId: 2, region: 1, page: 0 },
    ],
  });
  const zero = await lane.next();
  assert.equal(zero?.frame?.encoding, Encoding.ZERO);
  const huge = await lane.next();
  assert.equal(huge?.frame?.payload.length, 512 * K4);
  assert.deepEqual(Buffer.from(huge.frame.payload.subarray(5 * K4, 6 * K4)), noise(1000));
});

test('an empty message is a sign of life, and is answered with one', BUDGET, async (t) => {
  const { session, connect } = await reading(t);
  const lane = await connect();
  lane.ask({ session });
  lane.ask({});
  const answer = await lane.next();
  assert.equal(answer?.frame, undefined);
  assert.equal(answer?.error, undefined);
});

test('what is refused is told in a last message, and the agent stays well', BUDGET, async (t) => {
  const { session, connect } = await reading(t);
  const cases: readonly [MessageInitShape<typeof FaultsRequestSchema>, ErrorReason, RegExp][] = [
    [{ session: Buffer.alloc(16) }, ErrorReason.UNKNOWN_SESSION, /was not given by this agent/],
    [{ faults: [{ page: 1 }] }, ErrorReason.INVALID_ARGUMENT, /must carry the session/],
    [{ session, faults: [{ page: 99 }] }, ErrorReason.OUT_OF_RANGE, /pages 99 to 100/],
    [{ session, faults: [{ page: 0, pageCount: 4096 }] }, ErrorReason.OUT_OF_RANGE, /region 0/],
  ];
  for (const [request, reason, text] of cases) {
    const lane = await connect();
    lane.ask(request);
    const answer = await lane.next();
    assert.equal(answer?.error?.reason, reason);
    assert.match(answer.error.message, text);
    assert.equal(await lane.next(), undefined);
  }
  const noiseLane = await connect();
  noiseLane.socket.write(Buffer.alloc(64, 0xff));
  assert.equal((await noiseLane.next())?.error?.reason, ErrorReason.INVALID_ARGUMENT);
  const lane = await connect();
  lane.ask({ session, faults: [{ faultId: 1, page: 2 }] });
  assert.deepEqual(decode((await lane.next())?.frame), noise(2));
});

test('who asks for more than anybody waits for is told so, and costs no more', BUDGET, async (t) => {
  const { session, connect } = await reading(t);
  const lane = await connect();
  lane.ask({ session });
  // Runs are sent a piece a turn, so they wait.
  lane.ask({ faults: Array.from({ length: 20_000 }, () => ({ faultId: 1, page: 0, pageCount: 8 })) });
  let answer = await lane.next();
  while (answer?.frame !== undefined) answer = await lane.next();
  assert.equal(answer?.error?.reason, ErrorReason.INVALID_ARGUMENT);
});

test('a session that ends takes its connection with it, and says why', BUDGET, async (t) => {
  const { session, connect, agent, generation } = await reading(t);
  const lane = await connect();
  lane.ask({ session, faults: [{ faultId: 1, page: 2 }] });
  await lane.next();
  await agent.source.release({ vmId: 'vm', generation, force: true });
  assert.equal((await lane.next())?.error?.reason, ErrorReason.UNKNOWN_VM);
  assert.equal(await lane.next(), undefined);
});

test('a reader that does not take what it asks for does not fill the memory of the agent', BUDGET, async (t) => {
  const pages = 4096;
  const file = makeMemfd(t, pages * K4);
  for (let page = 0; page < pages; page += 64)
    file.write(page * K4, Buffer.concat(Array.from({ length: 64 }, () => noise(page))));
  const { session, connect } = await reading(t, memfd(file.path, region(K4, pages)));
  const lane = await connect();
  lane.socket.pause();
  for (let n = 0; n < 24; n++)
    lane.ask({
      ...(n === 0 ? { session } : {}),
      faults: Array.from({ length: 512 }, (_, i) => ({ faultId: n * 512 + i + 1, page: (n * 512 + i) % pages })),
    });
  const before = process.memoryUsage().arrayBuffers;
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert(process.memoryUsage().arrayBuffers - before < 32 * 1024 * 1024);
  lane.socket.resume();
  for (let n = 1; n <= 24 * 512; n++) assert.equal((await lane.next())?.faultId, n);
});
