import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PagewakeError } from '@pagewake/agent-kit';
import { ErrorReason, MigrationPhase } from '@pagewake/proto';
import { handOver, reasonOf, startDest, startVmm } from '../../test/agent.ts';
import { startFakeSource, type FakeSource } from '../../test/fake-source.ts';
import { content, seen, SIGBUS } from '../../test/pages.ts';
import { lacking } from '../../test/toucher.ts';
import { BUDGET, until } from '../../test/wait.ts';

const UFFD = { ...BUDGET, skip: lacking('userfaultfd by syscall', 'MISSING on memfd', 'UFFDIO_POISON') };
const PAGES = 1024;
const READY = { type: 'ready' };
const DONE = { type: 'done' };

/** A call that has not left this host when its source goes away only waits for it: that is no loss. */
const bothStreams = (source: FakeSource): Promise<true> =>
  until('both lanes have reached the source', () => source.streams.faults > 0 && source.streams.bulk > 0);

test(
  'a source that is killed and comes back is opened again by the same destination, and the migration completes',
  UFFD,
  async (t) => {
    const source = await startFakeSource(t, { pages: PAGES, bulk: () => undefined, fault: () => undefined });
    const dest = await startDest(t);
    const { vmmSocket } = await dest.start(source.address);
    const vmm = await startVmm(t, { pages: PAGES });
    handOver(vmm, vmmSocket);
    assert.deepEqual(await vmm.message(), READY);
    const before = vmm.touch(0, 1000);
    await until('the fault has come to the source', () => source.faults.length > 0);
    await bothStreams(source);
    await source.kill();
    const interrupted = await dest.phase('m', MigrationPhase.INTERRUPTED);
    assert.equal(reasonOf(interrupted), 'SOURCE_LOST');
    // One that comes while there is nobody to ask.
    const meanwhile = vmm.touch(1, 900);
    source.release();
    await source.restart();
    assert.deepEqual(await before, seen(content(1000)));
    assert.deepEqual(await meanwhile, seen(content(900)));
    assert.deepEqual(await vmm.message(), DONE);
    const done = await dest.phase('m', MigrationPhase.COMPLETED);
    assert.equal(done.error, undefined);
    assert.equal(done.progress?.linkLosses, 1n, 'one loss counts once');
    assert.equal((done.progress?.pagesByFault ?? 0n) + (done.progress?.pagesByPrefetch ?? 0n), BigInt(PAGES));
    assert.equal(new Set(source.opens.map((open) => open.destinationId)).size, 1);
    assert(source.opens.length >= 2);
    for (const page of [0, 511, 1023]) assert.deepEqual(await vmm.touch(0, page), seen(content(page)));
  },
);

for (const lane of ['faults', 'bulk'] as const)
  test(
    `a ${lane} stream that ends as soon as it begins is a lost source like any other, and the migration completes`,
    UFFD,
    async (t) => {
      const source = await startFakeSource(t, {
        pages: PAGES,
        endsStream: (which, count) => which === lane && count === 1,
      });
      const dest = await startDest(t);
      const { vmmSocket } = await dest.start(source.address);
      const vmm = await startVmm(t, { pages: PAGES });
      handOver(vmm, vmmSocket);
      assert.deepEqual(await vmm.message(), READY);
      assert.deepEqual(await vmm.touch(0, 1020), seen(content(1020)));
      assert.deepEqual(await vmm.message(), DONE);
      await dest.phase('m', MigrationPhase.COMPLETED);
    },
  );

for (const lane of ['faults', 'bulk'] as const)
  test(
    `an agent that does not know the session of the ${lane} stream is another one by now: it is opened anew, and the migration completes`,
    UFFD,
    async (t) => {
      const source = await startFakeSource(t, {
        pages: PAGES,
        endsStream: (which, count) => {
          if (which === lane && count === 1)
            throw new PagewakeError(ErrorReason.UNKNOWN_SESSION, 'this session was not given by this agent; call Open');
          return false;
        },
      });
      const dest = await startDest(t);
      const { vmmSocket } = await dest.start(source.address);
      const vmm = await startVmm(t, { pages: PAGES });
      handOver(vmm, vmmSocket);
      assert.deepEqual(await vmm.touch(0, 1020), seen(content(1020)));
      await dest.phase('m', MigrationPhase.COMPLETED);
      assert.equal(source.opens.length, 2);
    },
  );

test('a source that loses its streams again and again is opened again and again', UFFD, async (t) => {
  const source = await startFakeSource(t, {
    pages: PAGES,
    bulk: () => undefined,
    endsStream: (_lane, count) => count <= 3,
  });
  const dest = await startDest(t);
  const { vmmSocket } = await dest.start(source.address);
  const vmm = await startVmm(t, { pages: PAGES });
  handOver(vmm, vmmSocket);
  assert.deepEqual(await vmm.touch(0, 1020), seen(content(1020)));
  source.release();
  await dest.phase('m', MigrationPhase.COMPLETED);
});

test(
  'a source that comes back and refuses ends the migration with its reason; missing pages are SIGBUS',
  UFFD,
  async (t) => {
    const source = await startFakeSource(t, {
      pages: PAGES,
      bulk: () => undefined,
      fault: () => undefined,
      onOpen: (_request, count) => {
        if (count > 1) throw new PagewakeError(ErrorReason.STALE_GENERATION, 'another generation is served now');
      },
    });
    const dest = await startDest(t);
    const { vmmSocket } = await dest.start(source.address);
    const vmm = await startVmm(t, { pages: PAGES });
    handOver(vmm, vmmSocket);
    assert.deepEqual(await vmm.message(), READY);
    const touch = vmm.touch(0, 1000);
    await until('the fault has come to the source', () => source.faults.length > 0);
    await bothStreams(source);
    await source.kill();
    await source.restart();
    assert.deepEqual(await touch, SIGBUS);
    const told = await vmm.message();
    assert.deepEqual([told['type'], told['reason']], ['failed', 'STALE_GENERATION']);
    assert.equal(reasonOf(await dest.phase('m', MigrationPhase.FAILED)), 'STALE_GENERATION');
  },
);

test('a pause while the source is lost does not keep it from being found, and holds afterwards', UFFD, async (t) => {
  const source = await startFakeSource(t, { pages: PAGES, bulk: () => undefined });
  const dest = await startDest(t);
  const { vmmSocket } = await dest.start(source.address);
  const vmm = await startVmm(t, { pages: PAGES });
  handOver(vmm, vmmSocket);
  assert.deepEqual(await vmm.message(), READY);
  await bothStreams(source);
  await source.kill();
  await dest.phase('m', MigrationPhase.INTERRUPTED);
  const { migration } = await dest.client.pause({ migrationId: 'm' });
  assert.equal(migration?.phase, MigrationPhase.INTERRUPTED);
  source.release();
  await source.restart();
  await dest.phase('m', MigrationPhase.PAUSED);
  assert.deepEqual(await vmm.touch(0, 1000), seen(content(1000)));
  assert.equal((await dest.get('m')).phase, MigrationPhase.PAUSED);
  await dest.client.resume({ migrationId: 'm' });
  assert.deepEqual(await vmm.message(), DONE);
});

test('a migration that is paused when its source is lost is paused when it is back', UFFD, async (t) => {
  const source = await startFakeSource(t, { pages: PAGES, bulk: () => undefined });
  const dest = await startDest(t);
  const { vmmSocket } = await dest.start(source.address);
  const vmm = await startVmm(t, { pages: PAGES });
  handOver(vmm, vmmSocket);
  await dest.phase('m', MigrationPhase.FILLING);
  await dest.client.pause({ migrationId: 'm' });
  await bothStreams(source);
  await source.kill();
  await dest.phase('m', MigrationPhase.INTERRUPTED);
  await source.restart();
  await dest.phase('m', MigrationPhase.PAUSED);
});

test(
  'while the source is lost the migration can be cancelled by force, and nobody is left waiting',
  UFFD,
  async (t) => {
    const source = await startFakeSource(t, { pages: PAGES, bulk: () => undefined });
    const dest = await startDest(t);
    const { vmmSocket } = await dest.start(source.address);
    const vmm = await startVmm(t, { pages: PAGES });
    handOver(vmm, vmmSocket);
    assert.deepEqual(await vmm.message(), READY);
    await bothStreams(source);
    await source.kill();
    await dest.phase('m', MigrationPhase.INTERRUPTED);
    const touch = vmm.touch(0, 7);
    await dest.client.cancel({ migrationId: 'm', force: true });
    assert.deepEqual(await touch, SIGBUS);
  },
);
