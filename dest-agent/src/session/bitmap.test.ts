/** A VMM that hands a bitmap of stage-2 faults over: what it finds in it when it is told how its migration ended. */
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { MemoryTier, MigrationPhase } from '@pagewake/proto';
import { handOver, socketOf, startDest, startVmm } from '../../test/agent.ts';
import { startFakeSource } from '../../test/fake-source.ts';
import { content, PAGE_BYTES, seen } from '../../test/pages.ts';
import { lacking, type Toucher } from '../../test/toucher.ts';
import { BUDGET } from '../../test/wait.ts';

const UFFD = { ...BUDGET, skip: lacking('userfaultfd by syscall', 'MISSING on memfd', 'UFFDIO_POISON') };
const PAGES = 64;

async function startRig(t: TestContext) {
  const source = await startFakeSource(t, {
    pages: PAGES,
    zeroRuns: [{ region: 0, firstPages: [8], pageCounts: [8] }],
  });
  const dest = await startDest(t);
  await dest.start(source.address);
  await dest.client.pause({ migrationId: 'm' });
  const vmm = await startVmm(t, { pages: PAGES });
  handOver(vmm, socketOf(dest), { fds: ['uffd', 'memfd', 'bitmap'] });
  assert.deepEqual(await vmm.message(), { type: 'ready' });
  vmm.send(JSON.stringify({ type: 'stage2_fault', id: 1, vcpu: 0, offset: 3 * PAGE_BYTES }));
  assert.deepEqual(await vmm.message(), { type: 'resolved', id: 1, offset: 3 * PAGE_BYTES, len: PAGE_BYTES });
  return { dest, vmm };
}

async function setBits(vmm: Toucher): Promise<number> {
  let set = 0;
  for (let page = 0; page < PAGES; page++) if (await vmm.bit(page)) set++;
  return set;
}

test('whole: the tier is memfd-userfault, and no bit is set once the VMM is told', UFFD, async (t) => {
  const { dest, vmm } = await startRig(t);
  assert.equal(await setBits(vmm), PAGES - 1);
  await dest.client.resume({ migrationId: 'm' });
  assert.deepEqual(await vmm.message(), { type: 'done' });
  assert.equal(await setBits(vmm), 0);
  const { tier, faults } = await dest.phase('m', MigrationPhase.COMPLETED);
  assert.equal(tier, MemoryTier.MEMFD_USERFAULT);
  assert.deepEqual([faults?.stage2Exits, faults?.stage2ByWrite], [1n, 1n]);
  assert.deepEqual(await vmm.touch(0, 3), seen(content(3)));
});

test('cancelled: the bits of pages that never came stay set, those known to be zero too', UFFD, async (t) => {
  const { dest, vmm } = await startRig(t);
  await dest.client.cancel({ migrationId: 'm', force: true });
  const told = await vmm.message();
  assert.deepEqual([told['type'], told['reason']], ['failed', 'CANCELLED']);
  assert.equal(await setBits(vmm), PAGES - 1);
});
