import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { Client, credentials, status } from '@grpc/grpc-js';
import {
  BulkRequestSchema,
  Encoding,
  FaultsRequestSchema,
  type BulkRequest,
  type BulkResponse,
  type FaultsRequest,
  type FaultsResponse,
} from '@pagewake/proto';
import { startAgent, TOKEN, type TestAgent, type TestAgentOptions } from '../../../test/agent.ts';
import { Conversation, failureOf, readOpen, reasonOf } from '../../../test/conversation.ts';
import { decode, K4, M2, makeMemfd, makeSnapshot, noise, prose, startProcess } from '../../../test/guests.ts';

const BUDGET = { timeout: 30_000 };
const ZERO_PAGE = Buffer.alloc(K4);

type Memory = Parameters<TestAgent['serve']>[1];
type FaultStream = Conversation<FaultsRequest, FaultsResponse>;
type BulkStream = Conversation<BulkRequest, BulkResponse>;

interface Reading {
  readonly agent: TestAgent;
  readonly generation: number;
  readonly session: Uint8Array;
  faults(): FaultStream;
  bulk(): BulkStream;
}

/** An agent that serves `memory`, opened by its destination. */
async function read(t: TestContext, memory: Memory, options: TestAgentOptions = {}): Promise<Reading> {
  const agent = await startAgent(t, options);
  const generation = await agent.serve('vm', memory);
  const opened = await readOpen(
    agent.pages.open({ protocolVersion: 1, vmId: 'vm', generation, token: TOKEN, destinationId: 'd' }),
  );
  const { session } = opened.accepted;
  return {
    agent,
    generation,
    session,
    faults: () => {
      const stream: FaultStream = new Conversation(agent.pages.faults());
      stream.send(create(FaultsRequestSchema, { session }));
      return stream;
    },
    bulk: () => {
      const stream: BulkStream = new Conversation(agent.connect().bulk());
      stream.send(create(BulkRequestSchema, { session }));
      return stream;
    },
  };
}

function region(pageSizeBytes: number, pageCount: number, fileOffset = 0) {
  return { geometry: { pageSizeBytes, pageCount }, fileOffset: BigInt(fileOffset) };
}

function memfd(path: string, ...regions: ReturnType<typeof region>[]) {
  return { kind: { case: 'file' as const, value: { path, regions } } };
}

const faults = (...asked: { faultId: number; region?: number; page: number }[]): FaultsRequest =>
  create(FaultsRequestSchema, { faults: asked });
const range = (rangeId: number, firstPage: number, pageCount: number, region = 0): BulkRequest =>
  create(BulkRequestSchema, { rangeId, range: { region, firstPage, pageCount } });

/** 4 KiB pages: even ones noise, odd ones zero, but for the last, which is prose. Then two pages of 2 MiB, the second zero. */
const SMALL_PAGES = 32;
function mixedMemory(t: TestContext): Memory {
  const file = makeMemfd(t, 3 * M2);
  for (let page = 0; page < SMALL_PAGES; page += 2) file.write(page * K4, noise(page));
  file.write((SMALL_PAGES - 1) * K4, prose(SMALL_PAGES - 1));
  file.write(M2 + 5 * K4, noise(1000));
  return memfd(file.path, region(K4, SMALL_PAGES), region(M2, 2, M2));
}
function mixedPage(page: number): Buffer {
  if (page === SMALL_PAGES - 1) return prose(page);
  return page % 2 === 0 ? noise(page) : ZERO_PAGE;
}

test(
  'faults are answered in the order in which they were asked, each with its page, its id and its checksum',
  BUDGET,
  async (t) => {
    const lane = (await read(t, mixedMemory(t))).faults();
    const asked = [0, 31, 15, 1, 30, 0].map((page, i) => ({ faultId: 100 + i, page }));
    lane.send(faults(...asked.slice(0, 4)));
    lane.send(faults(...asked.slice(4)));
    for (const { faultId, page } of asked) {
      const response = await lane.next();
      assert.equal(response.faultId, faultId);
      assert.equal(response.frame?.firstPage, page);
      assert.equal(response.frame.pageCount, 1);
      const zero = page % 2 === 1 && page !== SMALL_PAGES - 1;
      assert.equal(response.frame.encoding, zero ? Encoding.ZERO : Encoding.RAW);
      assert.deepEqual(decode(response.frame), mixedPage(page));
    }
    await lane.end();
  },
);

test('a page of 2 MiB is one frame', BUDGET, async (t) => {
  const lane = (await read(t, mixedMemory(t))).faults();
  lane.send(faults({ faultId: 1, region: 1, page: 0 }, { faultId: 2, region: 1, page: 1 }));
  const expected = Buffer.alloc(M2);
  noise(1000).copy(expected, 5 * K4);
  assert.deepEqual(decode((await lane.next()).frame, M2), expected);
  assert.deepEqual(decode((await lane.next()).frame, M2), Buffer.alloc(M2));
  await lane.end();
});

test('every frame says how long its page took, and when its request came', BUDGET, async (t) => {
  const lane = (await read(t, mixedMemory(t))).faults();
  const before = Date.now() - 10;
  lane.send(faults({ faultId: 1, page: 0 }));
  const timings = (await lane.next()).frame?.timings;
  assert(timings !== undefined);
  assert(timings.readNs > 0 && timings.encodeNs > 0);
  assert(timings.receivedAtMs >= before && timings.receivedAtMs <= Date.now() + 10);
});

test(
  'a checksum belongs to its place: the same page elsewhere has another one, read again the same',
  BUDGET,
  async (t) => {
    const file = makeMemfd(t, 4 * K4);
    for (let page = 0; page < 4; page++) file.write(page * K4, noise(7));
    const lane = (await read(t, memfd(file.path, region(K4, 2), region(K4, 2, 2 * K4)))).faults();
    const sums: (number | undefined)[] = [];
    for (const [r, page] of [
      [0, 0],
      [0, 1],
      [1, 0],
      [1, 1],
      [0, 0],
    ] as const) {
      lane.send(faults({ faultId: 1, region: r, page }));
      sums.push((await lane.next()).frame?.checksum);
    }
    assert.equal(sums[4], sums[0]);
    assert.equal(new Set(sums).size, 4);
  },
);

test('a page that was data at the scan and reads as zeros is told as zeros', BUDGET, async (t) => {
  const file = makeMemfd(t, K4);
  file.write(0, noise(1));
  const lane = (await read(t, memfd(file.path, region(K4, 1)))).faults();
  file.write(0, ZERO_PAGE);
  lane.send(faults({ faultId: 1, page: 0 }));
  assert.equal((await lane.next()).frame?.encoding, Encoding.ZERO);
});

/** Reads a range to its end; returns its pages' bytes and the encodings of its frames. */
async function readRange(lane: BulkStream, rangeId: number, firstPage: number, pageCount: number) {
  const pieces: Buffer[] = [];
  const encodings: Encoding[] = [];
  let next = firstPage;
  for (;;) {
    const response = await lane.next();
    assert.equal(response.rangeId, rangeId);
    assert.equal(response.frame?.firstPage, next, 'frames follow each other without gap');
    pieces.push(decode(response.frame));
    encodings.push(response.frame.encoding);
    next += response.frame.pageCount;
    if (response.rangeDone) break;
  }
  assert.equal(next, firstPage + pageCount, 'the frames cover the range exactly');
  return { bytes: Buffer.concat(pieces), encodings };
}

test('ranges are served in order, each covered exactly by frames in page order', BUDGET, async (t) => {
  const lane = (await read(t, mixedMemory(t))).bulk();
  lane.send(range(7, 1, 30));
  lane.send(range(8, 31, 1));
  lane.send(range(9, 0, 32));
  for (const [id, first, count] of [
    [7, 1, 30],
    [8, 31, 1],
    [9, 0, 32],
  ] as const) {
    const { bytes } = await readRange(lane, id, first, count);
    assert.deepEqual(bytes, Buffer.concat(Array.from({ length: count }, (_, i) => mixedPage(first + i))));
  }
  lane.send(create(BulkRequestSchema, { rangeId: 10, range: { region: 1, firstPage: 0, pageCount: 1 } }));
  assert.equal((await lane.next()).rangeDone, true);
  await lane.end();
});

test('a range of 4 MiB comes in chunks of at most 256 KiB, and a fault gets in between', BUDGET, async (t) => {
  const pages = 4096;
  const file = makeMemfd(t, pages * K4);
  const content = Buffer.concat(Array.from({ length: 64 }, (_, i) => noise(i)));
  for (let page = 0; page < pages; page += 64) file.write(page * K4, content);
  const reading = await read(t, memfd(file.path, region(K4, pages)));
  const bulk = reading.bulk();
  const lane = reading.faults();
  for (let id = 0; id < 4; id++) bulk.send(range(id, id * 1024, 1024));
  let finished = 0;
  const reader = (async () => {
    for (let frames = 0; finished < 4; frames++) {
      const { frame, rangeDone } = await bulk.next();
      assert((frame?.pageCount ?? 0) <= 64);
      if (frames === 0) lane.send(faults({ faultId: 1, page: 4095 }));
      if (rangeDone) finished++;
    }
  })();
  assert.deepEqual(decode((await lane.next()).frame), noise(63));
  assert(finished < 4, 'the fault waited for all of the bulk work');
  await reader;
});

test('compression: auto packs what shrinks and leaves what does not; off and lz4 do as they say', BUDGET, async (t) => {
  const file = makeMemfd(t, 128 * K4);
  for (let page = 0; page < 64; page++) file.write(page * K4, noise(page));
  for (let page = 64; page < 128; page++) file.write(page * K4, prose(page));
  const expected = Buffer.concat(Array.from({ length: 128 }, (_, page) => (page < 64 ? noise(page) : prose(page))));
  for (const [compression, ofNoise, ofProse] of [
    ['auto', Encoding.RAW, Encoding.LZ4],
    ['off', Encoding.RAW, Encoding.RAW],
    // Noise does not shrink, so it goes as it is even where LZ4 was asked for.
    ['lz4', Encoding.RAW, Encoding.LZ4],
  ] as const) {
    const lane = (await read(t, memfd(file.path, region(K4, 128)), { compression })).bulk();
    lane.send(range(1, 0, 64));
    lane.send(range(2, 64, 64));
    const first = await readRange(lane, 1, 0, 64);
    const second = await readRange(lane, 2, 64, 64);
    assert.deepEqual(first.encodings, [ofNoise], compression);
    assert.deepEqual(second.encodings, [ofProse], compression);
    assert.deepEqual(Buffer.concat([first.bytes, second.bytes]), expected);
  }
});

test('fault compression packs faults only where it is switched on', BUDGET, async (t) => {
  const file = makeMemfd(t, K4);
  file.write(0, prose(0));
  for (const [faultCompression, encoding] of [
    [false, Encoding.RAW],
    [true, Encoding.LZ4],
  ] as const) {
    const lane = (await read(t, memfd(file.path, region(K4, 1)), { faultCompression })).faults();
    lane.send(faults({ faultId: 1, page: 0 }));
    const { frame } = await lane.next();
    assert.equal(frame?.encoding, encoding);
    assert.deepEqual(decode(frame), prose(0));
  }
});

const LIES: readonly [string, FaultsRequest | BulkRequest, RegExp][] = [
  ['a page beyond the region', faults({ faultId: 1, page: SMALL_PAGES }), /region 0: pages 32 to 33/],
  ['the largest page number', faults({ faultId: 1, page: 0xffff_ffff }), /region 0/],
  ['a region that is not there', faults({ faultId: 1, region: 2, page: 0 }), /region 2 does not exist: there are 2/],
  ['a good fault and a bad one', faults({ faultId: 1, page: 0 }, { faultId: 2, page: 99 }), /pages 99 to 100/],
  ['a range that leaves its region', range(1, 31, 2), /pages 31 to 33/],
  ['an empty range', range(1, 0, 0), /not a run/],
  ['a range that wraps around', range(1, 0xffff_ffff, 0xffff_ffff), /not a run/],
  ['two pages of 2 MiB at once', range(1, 0, 2, 1), /2 pages of 2097152 bytes is too large; at most 1/],
];

for (const [name, lie, message] of LIES) {
  test(`a lying request ends its stream with OUT_OF_RANGE, and nothing else: ${name}`, BUDGET, async (t) => {
    const reading = await read(t, mixedMemory(t));
    let error;
    if (lie.$typeName === 'pagewake.v1.FaultsRequest') {
      const lane = reading.faults();
      lane.send(lie);
      error = await lane.failure();
    } else {
      const lane = reading.bulk();
      lane.send(lie);
      error = await lane.failure();
    }
    assert.equal(error.reasonName, 'OUT_OF_RANGE');
    assert.match(error.message, message);
    const again = reading.faults();
    again.send(faults({ faultId: 9, page: 2 }));
    assert.deepEqual(decode((await again.next()).frame), noise(2));
  });
}

test('a range of more than 1024 pages is refused', BUDGET, async (t) => {
  const file = makeMemfd(t, 2048 * K4);
  const lane = (await read(t, memfd(file.path, region(K4, 2048)))).bulk();
  lane.send(range(1, 0, 1025));
  const error = await lane.failure();
  assert.equal(error.reasonName, 'OUT_OF_RANGE');
  assert.match(error.message, /1025 pages of 4096 bytes is too large; at most 1024/);
});

test('a first message without a session, or with one that nobody gave, is refused on both lanes', BUDGET, async (t) => {
  const { agent } = await read(t, mixedMemory(t));
  for (const session of [new Uint8Array(0), Buffer.alloc(16)]) {
    const lane: FaultStream = new Conversation(agent.pages.faults());
    lane.send(create(FaultsRequestSchema, { session, faults: [{ faultId: 1, page: 0 }] }));
    const error = await lane.failure();
    assert.equal(error.reasonName, 'INVALID_ARGUMENT');
    assert.match(error.message, session.length === 0 ? /must carry the session/ : /was not given by this agent/);
    const bulk: BulkStream = new Conversation(agent.pages.bulk());
    bulk.send(create(BulkRequestSchema, { session, range: { region: 0, firstPage: 0, pageCount: 1 } }));
    assert.equal((await bulk.failure()).reasonName, 'INVALID_ARGUMENT');
  }
});

test('bytes that are no message end their stream and leave the agent well', BUDGET, async (t) => {
  const reading = await read(t, mixedMemory(t));
  const raw = new Client(reading.agent.address, credentials.createInsecure());
  t.after(() => raw.close());
  const call = raw.makeBidiStreamRequest(
    '/pagewake.v1.PageService/Faults',
    (bytes: Buffer) => bytes,
    (bytes: Buffer) => bytes,
  );
  call.on('error', () => undefined);
  call.write(Buffer.from('ffffffffffffffffffff', 'hex'));
  const code = await new Promise((resolve) => call.once('status', (ended) => resolve(ended.code)));
  assert.equal(code, status.INTERNAL);
  const lane = reading.faults();
  lane.send(faults({ faultId: 1, page: 0 }));
  assert.deepEqual(decode((await lane.next()).frame), noise(0));
});

test('Register anew ends the streams of the older generation with STALE_GENERATION', BUDGET, async (t) => {
  const memory = mixedMemory(t);
  const reading = await read(t, memory);
  const lane = reading.faults();
  const bulk = reading.bulk();
  // Gives the agent time to take both streams on; if it has not, they meet the ended session instead, and the law is the same.
  await reading.agent.source.list({});
  await reading.agent.source.register({ vmId: 'vm', token: TOKEN, ...(memory === undefined ? {} : { memory }) });
  assert.equal((await lane.failure()).reasonName, 'STALE_GENERATION');
  assert.equal((await bulk.failure()).reasonName, 'STALE_GENERATION');
  const late = reading.faults();
  assert.equal((await late.failure()).reasonName, 'STALE_GENERATION', 'a new stream on the old session');
});

test('Release by force ends the streams; without it a VM whose pages were served stays', BUDGET, async (t) => {
  const memory = mixedMemory(t);
  const reading = await read(t, memory);
  const lane = reading.faults();
  lane.send(faults({ faultId: 1, page: 0 }));
  await lane.next();
  const { source } = reading.agent;
  const { generation } = reading;
  assert.equal(await reasonOf(source.release({ vmId: 'vm' })), 'PAGES_SERVED');
  assert.equal(await reasonOf(source.setPaused({ vmId: 'vm', generation, paused: false })), 'PAGES_SERVED');
  const again = { vmId: 'vm', token: TOKEN, ...(memory === undefined ? {} : { memory }) };
  assert.equal(await reasonOf(source.register(again)), 'PAGES_SERVED');
  await source.release({ vmId: 'vm', force: true });
  assert.equal((await lane.failure()).reasonName, 'UNKNOWN_VM');
  assert.equal((await source.register(again)).generation, generation + 1);
});

test('the same destination may open again; the streams of its older session end', BUDGET, async (t) => {
  const reading = await read(t, mixedMemory(t));
  const old = reading.faults();
  old.send(faults({ faultId: 1, page: 0 }));
  await old.next();
  const wish = { protocolVersion: 1, vmId: 'vm', generation: reading.generation, token: TOKEN, destinationId: 'd' };
  const { accepted } = await readOpen(reading.agent.pages.open(wish));
  assert.equal((await old.failure()).reasonName, 'CANCELLED');
  const lane: FaultStream = new Conversation(reading.agent.pages.faults());
  lane.send(create(FaultsRequestSchema, { session: accepted.session, faults: [{ faultId: 2, page: 2 }] }));
  assert.deepEqual(decode((await lane.next()).frame), noise(2));
});

test('what is complete is never served again, and says so on every way', BUDGET, async (t) => {
  const reading = await read(t, mixedMemory(t));
  const { agent, session, generation } = reading;
  const lane = reading.faults();
  lane.send(faults({ faultId: 1, page: 0 }, { faultId: 2, page: 1 }));
  await lane.next();
  await lane.next();
  const done = await agent.pages.complete({ session, pagesByFault: 1n });
  assert.deepEqual([done.pagesServed, done.payloadBytes], [2n, 4096n]);
  lane.send(faults({ faultId: 3, page: 0 }));
  assert.equal((await lane.failure()).reasonName, 'ALREADY_COMPLETED');
  const bulk = reading.bulk();
  assert.equal((await bulk.failure()).reasonName, 'ALREADY_COMPLETED');
  const wish = { protocolVersion: 1, vmId: 'vm', generation, token: TOKEN, destinationId: 'd' };
  assert.equal(await reasonOf(readOpen(agent.pages.open(wish))), 'ALREADY_COMPLETED');
  assert.equal(
    (await agent.pages.complete({ session })).pagesServed,
    2n,
    'an answer that was lost can be asked for again',
  );
  assert.equal(await reasonOf(agent.pages.complete({ session: Buffer.alloc(16) })), 'INVALID_ARGUMENT');
});

test(
  "another process's memory is served from its pages; once it has exited that is told, never zeros",
  BUDGET,
  async (t) => {
    const child = await startProcess(t, 64);
    const regions = [{ geometry: { pageSizeBytes: K4, pageCount: 64 }, address: BigInt(child.address) }];
    const reading = await read(t, { kind: { case: 'process', value: { pid: child.pid, regions } } });
    const lane = reading.faults();
    for (const page of [0, 31, 63]) {
      lane.send(faults({ faultId: 1, page }));
      assert.deepEqual(decode((await lane.next()).frame), child.expected(page));
    }
    const bulk = reading.bulk();
    bulk.send(range(1, 0, 64));
    const { bytes } = await readRange(bulk, 1, 0, 64);
    assert.deepEqual(bytes, Buffer.concat(Array.from({ length: 64 }, (_, page) => child.expected(page))));
    await child.kill();
    lane.send(faults({ faultId: 2, page: 0 }));
    const error = await lane.failure();
    assert.equal(error.reasonName, 'MEMORY_UNREADABLE');
    assert.match(error.message, new RegExp(`process ${String(child.pid)}: .*has exited`));
    bulk.send(range(2, 0, 64));
    assert.equal((await bulk.failure()).reasonName, 'MEMORY_UNREADABLE');
  },
);

test('a sparse snapshot is served, its holes as zeros; once it is truncated that is told', BUDGET, async (t) => {
  const pages = 1024;
  const file = makeSnapshot(t, pages * K4);
  for (const page of [0, 700, 1023]) file.write(page * K4, noise(page));
  const value = { path: file.path, regions: [region(K4, pages)] };
  const reading = await read(t, { kind: { case: 'snapshot', value } });
  const [vm] = (await reading.agent.source.list({})).vms;
  assert.equal(vm?.vmId, 'vm');
  const lane = reading.faults();
  for (const page of [0, 1, 700, 1023]) {
    lane.send(faults({ faultId: 1, page }));
    assert.deepEqual(decode((await lane.next()).frame), page === 1 ? ZERO_PAGE : noise(page));
  }
  file.truncate(512 * K4);
  lane.send(faults({ faultId: 2, page: 0 }));
  assert.deepEqual(decode((await lane.next()).frame), noise(0), 'what is left is served on');
  lane.send(faults({ faultId: 3, page: 700 }));
  const error = await lane.failure();
  assert.equal(error.reasonName, 'MEMORY_UNREADABLE');
  const short = await failureOf(
    reading.agent.source.register({ vmId: 'short', token: TOKEN, memory: { kind: { case: 'snapshot', value } } }),
  );
  assert.equal(short.reasonName, 'GEOMETRY_MISMATCH');
  assert.deepEqual([short.metadata['expected'], short.metadata['found']], [String(1024 * K4), String(512 * K4)]);
});

test('a reader that does not take what it asks for does not fill the memory of the agent', BUDGET, async (t) => {
  const pages = 1024;
  const file = makeMemfd(t, pages * K4);
  const content = Buffer.concat(Array.from({ length: 64 }, (_, i) => noise(i)));
  for (let page = 0; page < pages; page += 64) file.write(page * K4, content);
  const { agent, session } = await read(t, memfd(file.path, region(K4, pages)));
  const call = agent.connect().bulk();
  call.pause();
  call.write(create(BulkRequestSchema, { session }));
  // 64 times 4 MiB are asked for and not read.
  for (let id = 0; id < 64; id++) call.write(range(id, 0, pages));
  await new Promise((resolve) => setTimeout(resolve, 500));
  const [vm] = (await agent.source.list({})).vms;
  assert(Number(vm?.payloadBytes) < 64 * M2, `${String(vm?.payloadBytes)} bytes were served to nobody`);
  const lane: BulkStream = new Conversation(call);
  for (let id = 0; id < 64; id++) await readRange(lane, id, 0, pages);
});
