import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { Client, credentials, status } from '@grpc/grpc-js';
import { BulkRequestSchema, FaultsRequestSchema, type BulkRequest, type FaultsRequest } from '@pagewake/proto';
import { TOKEN } from '../../../test/agent.ts';
import { Conversation, failureOf, readOpen, reasonOf } from '../../../test/conversation.ts';
import { decode, K4, makeMemfd, makeSnapshot, noise, startProcess } from '../../../test/guests.ts';
import {
  faults,
  memfd,
  mixedMemory,
  range,
  read,
  readRange,
  region,
  SMALL_PAGES,
  ZERO_PAGE,
  type BulkStream,
  type FaultStream,
} from '../../../test/reading.ts';

const BUDGET = { timeout: 30_000 };

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
    const reason = session.length === 0 ? 'INVALID_ARGUMENT' : 'UNKNOWN_SESSION';
    assert.equal(error.reasonName, reason);
    assert.match(error.message, session.length === 0 ? /must carry the session/ : /was not given by this agent/);
    const bulk: BulkStream = new Conversation(agent.pages.bulk());
    bulk.send(create(BulkRequestSchema, { session, range: { region: 0, firstPage: 0, pageCount: 1 } }));
    assert.equal((await bulk.failure()).reasonName, reason);
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
  assert.equal(await reasonOf(agent.pages.complete({ session: Buffer.alloc(16) })), 'UNKNOWN_SESSION');
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
