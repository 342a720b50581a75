import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { BulkRequestSchema, Encoding } from '@pagewake/proto';
import { Conversation } from '../../../test/conversation.ts';
import { decode, K4, M2, makeMemfd, noise, prose } from '../../../test/guests.ts';
import {
  faults,
  memfd,
  mixedMemory,
  mixedPage,
  range,
  read,
  readRange,
  region,
  SMALL_PAGES,
  ZERO_PAGE,
  type BulkStream,
} from '../../../test/reading.ts';

const BUDGET = { timeout: 30_000 };
/** A quarter of a gibibyte over gRPC. */
const MUCH_BUDGET = { timeout: 3 * BUDGET.timeout };

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

test('a reader that does not take what it asks for does not fill the memory of the agent', MUCH_BUDGET, async (t) => {
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
