import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PagewakeError } from '@pagewake/agent-kit';
import { Encoding, ErrorReason, MigrationPhase } from '@pagewake/proto';
import { failure, handOver, reasonOf, startDest, startVmm } from '../../test/agent.ts';
import { startFakeSource } from '../../test/fake-source.ts';
import { content, frameOf, seen, SIGBUS } from '../../test/pages.ts';
import { lacking } from '../../test/toucher.ts';
import { BUDGET } from '../../test/wait.ts';

const UFFD = { ...BUDGET, skip: lacking('userfaultfd by syscall', 'MISSING on memfd', 'UFFDIO_POISON') };
const PAGES = 64;

test(
  'a source that lies at Open fails the migration: the orchestrator and the VMM are told, and nothing is asked of it',
  UFFD,
  async (t) => {
    const source = await startFakeSource(t, {
      pages: PAGES,
      accepted: { regions: [{ pageSizeBytes: 4096, pageCount: 65 }] },
    });
    const dest = await startDest(t);
    const { vmmSocket } = await dest.start(source.address);
    const watched = dest.watch('m');
    const vmm = await startVmm(t);
    handOver(vmm, vmmSocket);
    const told = await vmm.message();
    assert.deepEqual([told['type'], told['reason'], told['again']], ['failed', 'GEOMETRY_MISMATCH', true]);
    assert.match(String(told['message']), /region 0: 65 pages .* 64/);
    await vmm.channelClosed();
    const last = (await watched).at(-1) ?? assert.fail();
    assert.equal(last.phase, MigrationPhase.FAILED);
    assert.equal(reasonOf(last), 'GEOMETRY_MISMATCH');
    assert.equal(source.ranges.length + source.faults.length + source.completes.length, 0);
    // Nothing came and no guest ran, so nothing is lost: who touches it waits, and another migration may fill it.
    const waits = vmm.touch(0, 3);
    const honest = await startFakeSource(t, { pages: PAGES });
    const { vmmSocket: next } = await dest.start(honest.address, { migrationId: 'next' });
    handOver(vmm, next);
    assert.deepEqual(await waits, seen(content(3)));
    await dest.phase('next', MigrationPhase.COMPLETED);
  },
);

for (const [law, lie, reason] of [
  ['checksums that are not those of the content', { checksum: 1 }, 'CHECKSUM_MISMATCH'],
  ['content of another page', { payload: Buffer.alloc(4096, 1) }, 'CHECKSUM_MISMATCH'],
  ['frames of another region', { region: 9 }, 'MALFORMED_FRAME'],
] as const)
  test(`on the fault lane, ${law}: ${reason}, and who waited gets a SIGBUS`, UFFD, async (t) => {
    const source = await startFakeSource(t, {
      pages: 1024,
      bulk: () => undefined,
      fault: ({ page }) => frameOf(page, 1, Encoding.RAW, lie),
    });
    const dest = await startDest(t);
    const { vmmSocket } = await dest.start(source.address);
    const vmm = await startVmm(t, { pages: 1024 });
    handOver(vmm, vmmSocket);
    assert.deepEqual(await vmm.message(), { type: 'ready' });
    assert.deepEqual(await vmm.touch(0, 1000), SIGBUS);
    const told = await vmm.message();
    assert.deepEqual([told['type'], told['reason']], ['failed', reason]);
    assert.equal(reasonOf(await dest.phase('m', MigrationPhase.FAILED)), reason);
    assert.equal(source.faults.length, 3);
    assert.deepEqual(await vmm.touch(1, 5), SIGBUS);
  });

test(
  'on the bulk lane, checksums that are not those of the content: CHECKSUM_MISMATCH, and no page can be read',
  UFFD,
  async (t) => {
    const source = await startFakeSource(t, {
      pages: PAGES,
      bulk: ({ firstPage, pageCount }) => frameOf(firstPage, pageCount, Encoding.RAW, { checksum: 5 }),
    });
    const dest = await startDest(t);
    const { vmmSocket } = await dest.start(source.address);
    const vmm = await startVmm(t);
    handOver(vmm, vmmSocket);
    const failed = await dest.phase('m', MigrationPhase.FAILED);
    assert.equal(reasonOf(failed), 'CHECKSUM_MISMATCH');
    assert.equal(failed.progress?.badFrames, 3n);
    assert.deepEqual(await vmm.touch(0, 1), SIGBUS);
  },
);

test(
  'a source that refuses on the stream, for a reason of its own, ends the migration with that reason',
  UFFD,
  async (t) => {
    const source = await startFakeSource(t, {
      pages: PAGES,
      bulk: () => {
        throw new PagewakeError(ErrorReason.MEMORY_UNREADABLE, 'the image cannot be read');
      },
    });
    const dest = await startDest(t);
    const { vmmSocket } = await dest.start(source.address);
    const vmm = await startVmm(t);
    handOver(vmm, vmmSocket);
    assert.equal(reasonOf(await dest.phase('m', MigrationPhase.FAILED)), 'MEMORY_UNREADABLE');
  },
);

test(
  'a source that is cut off in the middle of Open fails the migration with a reason; the VMM is told',
  UFFD,
  async (t) => {
    const reached = Promise.withResolvers<void>();
    const source = await startFakeSource(t, {
      pages: PAGES,
      beforeOpenEnds: () => {
        reached.resolve();
        return new Promise<void>(() => undefined);
      },
    });
    const dest = await startDest(t);
    const { vmmSocket } = await dest.start(source.address);
    const vmm = await startVmm(t);
    handOver(vmm, vmmSocket);
    await reached.promise;
    await source.kill();
    const failed = await dest.phase('m', MigrationPhase.FAILED);
    assert.match(reasonOf(failed), /^SOURCE_(UNREACHABLE|LOST)$/);
    assert.equal((await vmm.message())['type'], 'failed');
  },
);

test(
  'a source that nobody can reach is SOURCE_UNREACHABLE at Start, and the VM may be tried again',
  UFFD,
  async (t) => {
    const source = await startFakeSource(t, { pages: PAGES });
    await source.kill();
    const dest = await startDest(t);
    const { reason, message } = await failure(dest.start(source.address));
    assert.equal(reason, 'SOURCE_UNREACHABLE', message);
    assert.equal(reasonOf(await dest.get('m')), 'SOURCE_UNREACHABLE');
    await source.restart();
    assert.equal((await dest.start(source.address, { migrationId: 'again' })).phase, MigrationPhase.AWAITING_VMM);
  },
);
