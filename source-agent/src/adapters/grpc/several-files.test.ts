/** Guest memory in more than one file: one backend a NUMA node, one snapshot file a region. */
import assert from 'node:assert/strict';
import { linkSync } from 'node:fs';
import { test } from 'node:test';
import { startAgent, TOKEN } from '../../../test/agent.ts';
import { failureOf, Opening, zeroPages } from '../../../test/conversation.ts';
import { decode, K4, M2, makeMemfd, makeSnapshot, noise } from '../../../test/guests.ts';
import { faults, read, region, type Memory } from '../../../test/reading.ts';

const BUDGET = { timeout: 20_000 };
const PAGES = 16;
type Kind = 'file' | 'snapshot';

function several(kind: Kind, path: string, ...regions: (ReturnType<typeof region> & { path?: string })[]): Memory {
  return { kind: { case: kind, value: { path, regions } } };
}

for (const kind of ['file', 'snapshot'] as const) {
  test(
    `each region is read from its own file, and from the common one where it names none: ${kind}`,
    BUDGET,
    async (t) => {
      const make = kind === 'file' ? makeMemfd : makeSnapshot;
      const [common, own] = [make(t, 3 * PAGES * K4), make(t, 2 * M2)];
      common.write(2 * K4, noise(1));
      common.write((2 * PAGES + 3) * K4, noise(2));
      own.write(M2, noise(3));
      const memory = several(
        kind,
        common.path,
        region(K4, PAGES),
        { ...region(M2, 2), path: own.path },
        region(K4, PAGES, 2 * PAGES * K4),
      );
      const lane = (await read(t, memory)).faults();
      for (const [r, page, content] of [
        [0, 2, noise(1)],
        [1, 1, Buffer.concat([noise(3), Buffer.alloc(M2 - K4)])],
        [2, 3, noise(2)],
        [2, 2, Buffer.alloc(K4)],
      ] as const) {
        lane.send(faults({ faultId: 1, region: r, page }));
        assert.deepEqual(decode((await lane.next()).frame, r === 1 ? M2 : K4), content);
      }
    },
  );
}

test('holes are told of each file, as they are at the pause', BUDGET, async (t) => {
  const agent = await startAgent(t);
  const [first, second] = [makeMemfd(t, PAGES * K4), makeMemfd(t, PAGES * K4)];
  first.write(K4, noise(1));
  const memory = several('file', first.path, region(K4, PAGES), { ...region(K4, PAGES), path: second.path });
  const { generation } = await agent.source.register({ vmId: 'vm', token: TOKEN, ...(memory && { memory }) });
  second.write(5 * K4, noise(2));
  const { dataPages } = await agent.source.setPaused({ vmId: 'vm', generation, paused: true });
  assert.equal(dataPages, 2n);
  const opening = new Opening(
    agent.pages.open({ protocolVersion: 1, vmId: 'vm', generation, token: TOKEN, destinationId: 'd' }),
  );
  const opened = { accepted: await opening.accepted(), ...(await opening.rest()) };
  const without = (page: number): number[] => Array.from({ length: PAGES }, (_, i) => i).filter((i) => i !== page);
  assert.deepEqual(zeroPages(opened, 0), without(1));
  assert.deepEqual(zeroPages(opened, 1), without(5));
});

test('a refusal names the region and its file, and leaves nothing open', BUDGET, async (t) => {
  const { source } = await startAgent(t);
  const [first, second] = [makeSnapshot(t, PAGES * K4), makeSnapshot(t, PAGES * K4)];
  const other = `${first.path}.other`;
  linkSync(first.path, other);
  const refused = async (...regions: Parameters<typeof several>[2][]) => {
    const memory = several('snapshot', first.path, ...regions);
    return failureOf(source.register({ vmId: 'vm', token: TOKEN, ...(memory && { memory }) }));
  };
  const short = await refused(region(K4, PAGES), { ...region(K4, PAGES + 1), path: second.path });
  assert.equal(short.reasonName, 'GEOMETRY_MISMATCH');
  assert.match(short.message, new RegExp(`${second.path} has 65536 bytes, but region 1 ends at 69632`));
  const missing = await refused(region(K4, PAGES), { ...region(K4, 1), path: '/nowhere/ram' });
  assert.equal(missing.reasonName, 'MEMORY_UNREADABLE');
  assert.match(missing.message, /\/nowhere\/ram cannot be opened/);
  // One file by two names is one file.
  const overlap = await refused(region(K4, 2), { ...region(K4, 2, K4), path: other });
  assert.equal(overlap.reasonName, 'INVALID_ARGUMENT');
  assert.match(overlap.message, /region 1 begins at file_offset 4096, inside region 0/);
});

test('what cannot be read names its region and file', BUDGET, async (t) => {
  const [first, second] = [makeSnapshot(t, PAGES * K4), makeSnapshot(t, PAGES * K4)];
  second.write(9 * K4, noise(9));
  const memory = several('snapshot', first.path, region(K4, PAGES), { ...region(K4, PAGES), path: second.path });
  const lane = (await read(t, memory)).faults();
  second.truncate(K4);
  lane.send(faults({ faultId: 1, region: 1, page: 9 }));
  const error = await lane.failure();
  assert.equal(error.reasonName, 'MEMORY_UNREADABLE');
  assert.ok(error.message.includes(second.path), error.message);
  assert.deepEqual([error.metadata['region'], error.metadata['path']], ['1', second.path]);
});
