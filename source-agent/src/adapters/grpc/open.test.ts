import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { Encoding, FaultsRequestSchema, type FaultsRequest, type FaultsResponse } from '@pagewake/proto';
import { startAgent, TOKEN, type TestAgent } from '../../../test/agent.ts';
import { Conversation, failureOf, readOpen, reasonOf, zeroPages } from '../../../test/conversation.ts';
import { K4, M2, makeMemfd, noise } from '../../../test/guests.ts';

const BUDGET = { timeout: 20_000 };
const PAGES = 64;

async function servedVm(t: TestContext) {
  const agent = await startAgent(t);
  const file = makeMemfd(t, PAGES * K4);
  for (const page of [3, 4, 63]) file.write(page * K4, noise(page));
  const memory = fileOf(file.path, [{ geometry: { pageSizeBytes: K4, pageCount: PAGES }, fileOffset: 0n }]);
  const generation = await agent.serve('vm', memory);
  const wish = { protocolVersion: 1, vmId: 'vm', generation, token: TOKEN, destinationId: 'd1' };
  return { agent, file, memory, generation, wish };
}

interface FileRegionInit {
  readonly geometry: { readonly pageSizeBytes: number; readonly pageCount: number };
  readonly fileOffset: bigint;
}

function fileOf(path: string, regions: FileRegionInit[]) {
  return { kind: { case: 'file' as const, value: { path, regions } } };
}

interface Wish {
  readonly protocolVersion: number;
  readonly vmId: string;
  readonly generation: number;
  readonly token: Uint8Array;
  readonly destinationId: string;
  readonly regions?: { readonly pageSizeBytes: number; readonly pageCount: number }[];
}
const open = (agent: TestAgent, wish: Wish) => readOpen(agent.pages.open(wish));

test('of several that register a VM at once, unless it is registered, one is let in', BUDGET, async (t) => {
  const { source } = await startAgent(t);
  const file = makeMemfd(t, PAGES * K4);
  const memory = fileOf(file.path, [{ geometry: { pageSizeBytes: K4, pageCount: PAGES }, fileOffset: 0n }]);
  const asked = Array.from({ length: 8 }, () =>
    reasonOf(source.register({ vmId: 'vm', token: TOKEN, memory, unlessRegistered: true })),
  );
  assert.deepEqual((await Promise.all(asked)).toSorted(), [...Array<string>(7).fill('MIGRATION_EXISTS'), 'none']);
  assert.equal((await source.list({})).vms.length, 1);
});

test('Open gives session, geometry, the number of data pages, and every zero page', BUDGET, async (t) => {
  const { agent, generation, wish } = await servedVm(t);
  const opened = await open(agent, wish);
  assert.equal(opened.accepted.protocolVersion, 1);
  assert.equal(opened.accepted.generation, generation);
  assert.equal(opened.accepted.session.length, 16);
  assert.equal(opened.accepted.dataPages, 3n);
  assert.equal(opened.paused.dataPages, 3n);
  assert.deepEqual(
    opened.accepted.regions.map(({ pageSizeBytes, pageCount }) => [pageSizeBytes, pageCount]),
    [[K4, PAGES]],
  );
  const data = new Set([3, 4, 63]);
  assert.deepEqual(
    zeroPages(opened, 0),
    Array.from({ length: PAGES }, (_, page) => page).filter((page) => !data.has(page)),
  );
});

test('of very many holes the 4096 longest are told; the others are found when they are read', BUDGET, async (t) => {
  const agent = await startAgent(t);
  const pages = 3 * 8192;
  const file = makeMemfd(t, pages * K4);
  const mark = Buffer.alloc(8, 1);
  // Holes of one page, and the last one of 100.
  for (let page = 1; page < pages - 100; page += 2) file.write(page * K4, mark);
  const generation = await agent.serve(
    'vm',
    fileOf(file.path, [{ geometry: { pageSizeBytes: K4, pageCount: pages }, fileOffset: 0n }]),
  );
  const opened = await open(agent, { protocolVersion: 1, vmId: 'vm', generation, token: TOKEN, destinationId: 'd' });
  const told = zeroPages(opened, 0);
  assert.equal(told.length, 4095 + 100);
  assert.equal(opened.paused.dataPages, BigInt(pages - told.length));
  assert.deepEqual(
    told.slice(0, 4095),
    Array.from({ length: 4095 }, (_, i) => 2 * i),
  );
  assert.deepEqual(
    told.slice(4095),
    Array.from({ length: 100 }, (_, i) => pages - 100 + i),
  );
  const faults = new Conversation<FaultsRequest, FaultsResponse>(agent.pages.faults());
  const { session } = opened.accepted;
  faults.send(create(FaultsRequestSchema, { session, faults: [{ faultId: 1, page: 2 * 4095 }] }));
  assert.equal((await faults.next()).frame?.encoding, Encoding.ZERO);
});

const REFUSED: readonly [string, (wish: Wish) => Wish, string, RegExp][] = [
  ['an unknown VM', (w) => ({ ...w, vmId: 'other' }), 'UNKNOWN_VM', /no VM "other"/],
  ['version 0', (w) => ({ ...w, protocolVersion: 0 }), 'UNSUPPORTED_VERSION', /version 0 .*accepted: 1/],
  ['version 2', (w) => ({ ...w, protocolVersion: 2 }), 'UNSUPPORTED_VERSION', /version 2 .*accepted: 1/],
  ['a wrong token', (w) => ({ ...w, token: Buffer.alloc(32) }), 'BAD_TOKEN', /wrong token/],
  ['no token', (w) => ({ ...w, token: new Uint8Array(0) }), 'BAD_TOKEN', /wrong token/],
  ['no destination', (w) => ({ ...w, destinationId: '' }), 'INVALID_ARGUMENT', /destination_id/],
  ['generation 0', (w) => ({ ...w, generation: 0 }), 'STALE_GENERATION', /generation 0 .*is not in force/],
  ['a later generation', (w) => ({ ...w, generation: w.generation + 1 }), 'STALE_GENERATION', /is not in force/],
  [
    'a region that is larger',
    (w) => ({ ...w, regions: [{ pageSizeBytes: K4, pageCount: PAGES + 1 }] }),
    'GEOMETRY_MISMATCH',
    /region 0: the source has 64 pages.*destination 65 pages/,
  ],
  [
    'another page size',
    (w) => ({ ...w, regions: [{ pageSizeBytes: M2, pageCount: PAGES }] }),
    'GEOMETRY_MISMATCH',
    /2097152 bytes/,
  ],
  [
    'a region too many',
    (w) => ({
      ...w,
      regions: [
        { pageSizeBytes: K4, pageCount: PAGES },
        { pageSizeBytes: K4, pageCount: 1 },
      ],
    }),
    'GEOMETRY_MISMATCH',
    /1 regions, the destination 2/,
  ],
];

for (const [name, change, reason, message] of REFUSED) {
  test(`Open refuses with a typed error and takes no session from anybody: ${name}`, BUDGET, async (t) => {
    const { agent, wish } = await servedVm(t);
    const error = await failureOf(open(agent, change(wish)));
    assert.equal(error.reasonName, reason);
    assert.match(error.message, message);
    await open(agent, { ...wish, destinationId: 'd2' });
  });
}

test('an unsupported version is told which are spoken, as data', BUDGET, async (t) => {
  const { agent, wish } = await servedVm(t);
  const error = await failureOf(open(agent, { ...wish, protocolVersion: 9 }));
  assert.deepEqual({ ...error.metadata }, { found: '9', expected: '1' });
});

test('a VM that was not paused is not served', BUDGET, async (t) => {
  const { agent, memory } = await servedVm(t);
  const { generation } = await agent.source.register({ vmId: 'running', token: TOKEN, memory });
  const wish = { protocolVersion: 1, vmId: 'running', generation, token: TOKEN, destinationId: 'd' };
  assert.equal(await reasonOf(open(agent, wish)), 'VM_NOT_PAUSED');
  await agent.source.setPaused({ vmId: 'running', generation, paused: true });
  await agent.source.setPaused({ vmId: 'running', generation, paused: false });
  assert.equal(await reasonOf(open(agent, wish)), 'VM_NOT_PAUSED');
  await agent.source.setPaused({ vmId: 'running', generation, paused: true });
  await open(agent, wish);
  assert.equal(await reasonOf(agent.source.setPaused({ vmId: 'running', generation, paused: false })), 'PAGES_SERVED');
});

test('a second destination is refused while the first may come back', BUDGET, async (t) => {
  const { agent, wish } = await servedVm(t);
  const first = await open(agent, wish);
  assert.equal(await reasonOf(open(agent, { ...wish, destinationId: 'd2' })), 'SECOND_DESTINATION');
  const again = await open(agent, { ...wish, regions: [{ pageSizeBytes: K4, pageCount: PAGES }] });
  assert.notDeepEqual(again.accepted.session, first.accepted.session);
});

const BAD_REGISTERS: readonly [string, (path: string) => object, string, RegExp][] = [
  ['no memory', () => ({ memory: undefined }), 'INVALID_ARGUMENT', /memory is missing/],
  ['no regions', (path) => ({ memory: fileOf(path, []) }), 'INVALID_ARGUMENT', /no regions/],
  [
    'a region without geometry',
    (path) => ({ memory: { kind: { case: 'file', value: { path, regions: [{}] } } } }),
    'INVALID_ARGUMENT',
    /region 0 has no geometry/,
  ],
  ['a short token', () => ({ token: Buffer.alloc(15) }), 'INVALID_ARGUMENT', /token of 15 bytes; must be 16 to 64/],
  ['a long token', () => ({ token: Buffer.alloc(65) }), 'INVALID_ARGUMENT', /token of 65 bytes/],
  ['no vm_id', () => ({ vmId: '' }), 'INVALID_ARGUMENT', /vm_id/],
  [
    'a file that is too small',
    (path) => ({ memory: fileOf(path, [{ geometry: { pageSizeBytes: K4, pageCount: PAGES }, fileOffset: 4096n }]) }),
    'GEOMETRY_MISMATCH',
    /has 262144 bytes, but region 0 ends at 266240/,
  ],
  [
    'an offset beyond what a number can say',
    (path) => ({ memory: fileOf(path, [{ geometry: { pageSizeBytes: K4, pageCount: 1 }, fileOffset: 2n ** 63n }]) }),
    'INVALID_ARGUMENT',
    /beyond 2\^53/,
  ],
  [
    'a file that is not there',
    () => ({ memory: fileOf('/nowhere/ram', [{ geometry: { pageSizeBytes: K4, pageCount: 1 }, fileOffset: 0n }]) }),
    'MEMORY_UNREADABLE',
    /memory file \/nowhere\/ram cannot be opened: .*ENOENT/,
  ],
  [
    'a file that is no memory',
    () => ({ memory: fileOf('/dev/null', [{ geometry: { pageSizeBytes: K4, pageCount: 1 }, fileOffset: 0n }]) }),
    'MEMORY_UNREADABLE',
    /memory file \/dev\/null/,
  ],
  [
    'a process that is not there',
    () => ({
      memory: {
        kind: {
          case: 'process',
          value: { pid: 0x3fffffff, regions: [{ geometry: { pageSizeBytes: K4, pageCount: 1 }, address: 4096n }] },
        },
      },
    }),
    'MEMORY_UNREADABLE',
    /memory of process 1073741823 cannot be read: .*ESRCH/,
  ],
  [
    'an address that is not mapped',
    () => ({
      memory: {
        kind: {
          case: 'process',
          value: { pid: process.pid, regions: [{ geometry: { pageSizeBytes: K4, pageCount: 1 }, address: 0n }] },
        },
      },
    }),
    'GEOMETRY_MISMATCH',
    /nothing readable mapped at 0x0, in region 0/,
  ],
];

for (const [name, change, reason, message] of BAD_REGISTERS) {
  test(`Register refuses with numbers and leaves what was there alone: ${name}`, BUDGET, async (t) => {
    const { agent, file, memory, wish } = await servedVm(t);
    const good = { vmId: 'vm', token: TOKEN, memory };
    const error = await failureOf(agent.source.register({ ...good, ...change(file.path) }));
    assert.equal(error.reasonName, reason);
    assert.match(error.message, message);
    await open(agent, wish);
  });
}

test('List tells what each VM is, and Release forgets it', BUDGET, async (t) => {
  const { agent, generation, wish } = await servedVm(t);
  await open(agent, wish);
  const [vm] = (await agent.source.list({})).vms;
  assert.equal(vm?.vmId, 'vm');
  assert.equal(vm.state, 4, 'SERVING');
  assert.equal(vm.destinationId, 'd1');
  assert.deepEqual(
    vm.regions.map(({ pageSizeBytes, pageCount }) => [pageSizeBytes, pageCount]),
    [[K4, PAGES]],
  );
  assert.equal(await reasonOf(agent.source.release({ vmId: 'vm', generation: generation + 1 })), 'STALE_GENERATION');
  assert.equal(await reasonOf(agent.source.release({ vmId: 'vm' })), 'WRONG_PHASE');
  await agent.source.release({ vmId: 'vm', force: true });
  assert.deepEqual((await agent.source.list({})).vms, []);
  assert.equal(await reasonOf(agent.source.release({ vmId: 'vm' })), 'UNKNOWN_VM');
});
