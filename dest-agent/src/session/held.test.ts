/** Between the handshake and the moment at which the source's VM stands still: all is there, and nothing has happened to anybody. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { test, type TestContext } from 'node:test';
import { PagewakeError } from '@pagewake/agent-kit';
import { ErrorReason, MigrationMode, MigrationPhase } from '@pagewake/proto';
import { handOver, reasonOf, startDest, startVmm, type TestDest } from '../../test/agent.ts';
import { startFakeSource, type FakeSource, type SourceScript } from '../../test/fake-source.ts';
import { content, seen, SIGBUS, zeros } from '../../test/pages.ts';
import { lacking, type Toucher, type ToucherOptions } from '../../test/toucher.ts';
import { BUDGET, until } from '../../test/wait.ts';

const UFFD = {
  ...BUDGET,
  skip: lacking('userfaultfd by syscall', 'MISSING on memfd', 'ZEROPAGE on memfd', 'UFFDIO_POISON'),
};
const PAGES = 1024;
const HELD = { type: 'held' };
const READY = { type: 'ready' };
const DONE = { type: 'done' };

interface Held {
  readonly source: FakeSource;
  readonly dest: TestDest;
  readonly vmm: Toucher;
  readonly socket: string;
}

async function held(
  t: TestContext,
  script: Partial<SourceScript> = {},
  vmmOptions: ToucherOptions = {},
): Promise<Held> {
  const source = await startFakeSource(t, { pages: PAGES, running: true, ...script });
  const dest = await startDest(t);
  const { vmmSocket } = await dest.start(source.address);
  const vmm = await startVmm(t, { pages: PAGES, ...vmmOptions });
  handOver(vmm, vmmSocket);
  assert.deepEqual(await vmm.message(), HELD);
  await dest.phase('m', MigrationPhase.HELD);
  await until('both lanes have reached the source', () => source.streams.faults > 0 && source.streams.bulk > 0);
  return { source, dest, vmm, socket: vmmSocket };
}

const asked = (source: FakeSource): number => source.faults.length + source.ranges.length;

test(
  'while the source’s VM runs everything is connected and nothing is asked for; once it stands still the migration goes its way',
  UFFD,
  async (t) => {
    const { source, dest, vmm } = await held(t, { zeroRuns: [{ region: 0, firstPages: [10], pageCounts: [5] }] });
    const early = vmm.touch(0, 700);
    const earlyZero = vmm.touch(1, 12);
    await until('both faults are taken', async () => (await dest.get('m')).faults?.total === 2n);
    assert.equal(asked(source), 0);
    assert.equal((await dest.get('m')).progress?.fillingMs, 0);
    source.pause();
    assert.deepEqual(await early, seen(content(700)));
    // Asked for before anybody knew that it is zero; the fake source has content everywhere.
    assert.deepEqual(await earlyZero, seen(content(12)));
    assert.deepEqual(await vmm.message(), READY);
    assert.deepEqual(await vmm.message(), DONE);
    const done = await dest.phase('m', MigrationPhase.COMPLETED);
    assert.equal(done.progress?.pagesZero, 4n);
    assert.deepEqual(await vmm.touch(0, 11), seen(zeros));
  },
);

test(
  'paused while it is held, it is paused when the source’s VM stands still: a touch is served and nothing else asked for',
  UFFD,
  async (t) => {
    const { source, dest, vmm } = await held(t);
    assert.equal((await dest.client.pause({ migrationId: 'm' })).migration?.phase, MigrationPhase.HELD);
    source.pause();
    assert.deepEqual(await vmm.message(), READY);
    assert.equal((await dest.get('m')).phase, MigrationPhase.PAUSED);
    for (const page of [5, 600, 900]) assert.deepEqual(await vmm.touch(0, page), seen(content(page)));
    assert.equal(source.ranges.length, 0);
    await dest.client.resume({ migrationId: 'm' });
    assert.deepEqual(await vmm.message(), DONE);
  },
);

test('eager: held, then every page, then ready', UFFD, async (t) => {
  const source = await startFakeSource(t, { pages: PAGES, running: true });
  const dest = await startDest(t);
  const { vmmSocket } = await dest.start(source.address, { mode: MigrationMode.EAGER });
  const vmm = await startVmm(t, { pages: PAGES });
  handOver(vmm, vmmSocket);
  assert.deepEqual(await vmm.message(), HELD);
  source.pause();
  assert.deepEqual(await vmm.message(), READY);
  assert.deepEqual(await vmm.message(), DONE);
  assert.deepEqual(await vmm.touch(0, 700), seen(content(700)));
});

test('what a VMM gives back before a guest has run is still the source’s', UFFD, async (t) => {
  const { source, vmm } = await held(t, {}, { removeEvents: true });
  await vmm.remove(0, 5, 3);
  source.pause();
  for (const page of [5, 6, 7]) assert.deepEqual(await vmm.touch(0, page), seen(content(page)));
});

test(
  'a cancel needs no force and costs nothing: who waits goes on waiting, and the same memory is filled by the next migration',
  UFFD,
  async (t) => {
    const { source, dest, vmm, socket } = await held(t);
    const waits = vmm.touch(0, 3);
    await until('the fault is taken', async () => (await dest.get('m')).faults?.total === 1n);
    await dest.client.cancel({ migrationId: 'm' });
    assert.deepEqual(await vmm.message(), {
      type: 'failed',
      reason: 'CANCELLED',
      message: 'cancelled by the orchestrator',
      again: true,
    });
    await until('the socket is gone', () => !existsSync(socket));
    source.pause();
    const { vmmSocket } = await dest.start(source.address, { migrationId: 'next' });
    handOver(vmm, vmmSocket);
    assert.deepEqual(await waits, seen(content(3)));
    assert.deepEqual(await vmm.message(), READY);
    await dest.phase('next', MigrationPhase.COMPLETED);
  },
);

test('once the source’s VM stands still a cancel needs force, and is no longer harmless', UFFD, async (t) => {
  const { source, dest, vmm } = await held(t, { bulk: () => undefined, fault: () => undefined });
  source.pause();
  assert.deepEqual(await vmm.message(), READY);
  await assert.rejects(dest.client.cancel({ migrationId: 'm' }));
  await dest.client.cancel({ migrationId: 'm', force: true });
  const told = await vmm.message();
  assert.deepEqual([told['type'], told['reason'], told['again']], ['failed', 'CANCELLED', undefined]);
  assert.deepEqual(await vmm.touch(0, 3), SIGBUS);
});

test('a source that is lost and found again is waited for, as if nothing had been', UFFD, async (t) => {
  const { source, dest, vmm } = await held(t);
  const waits = vmm.touch(0, 3);
  await source.kill();
  await until('the loss is noticed', async () => (await dest.get('m')).progress?.linkLosses === 1n);
  assert.equal((await dest.get('m')).phase, MigrationPhase.HELD);
  await source.restart();
  await until('it is opened again', () => source.opens.length > 1);
  assert.equal(new Set(source.opens.map(({ destinationId }) => destinationId)).size, 1);
  source.pause();
  assert.deepEqual(await waits, seen(content(3)));
  assert.deepEqual(await vmm.message(), READY);
  const done = await dest.phase('m', MigrationPhase.COMPLETED);
  assert.equal(done.error, undefined);
});

test('a VM that stood still while its source could not be reached is found so', UFFD, async (t) => {
  const { source, dest, vmm } = await held(t);
  await source.kill();
  source.pause();
  await source.restart();
  assert.deepEqual(await vmm.message(), READY);
  await dest.phase('m', MigrationPhase.COMPLETED);
});

for (const lane of ['faults', 'bulk'] as const)
  test(`the ${lane} stream alone that ends is opened again with the rest`, UFFD, async (t) => {
    const source = await startFakeSource(t, {
      pages: PAGES,
      running: true,
      endsStream: (which, count) => which === lane && count === 1,
    });
    const dest = await startDest(t);
    const { vmmSocket } = await dest.start(source.address);
    const vmm = await startVmm(t, { pages: PAGES });
    handOver(vmm, vmmSocket);
    assert.deepEqual(await vmm.message(), HELD);
    await until('both streams are there anew', () => source.opens.length > 1 && source.streams[lane] > 1);
    source.pause();
    assert.deepEqual(await vmm.message(), READY);
    await dest.phase('m', MigrationPhase.COMPLETED);
  });

test(
  'a source that gives the VM away fails the migration, and the memory may be handed over again',
  UFFD,
  async (t) => {
    const { source, dest, vmm } = await held(t, {
      onOpen: (_request, count) => {
        if (count > 1) throw new PagewakeError(ErrorReason.STALE_GENERATION, 'another generation is served now');
      },
    });
    await source.kill();
    await source.restart();
    const told = await vmm.message();
    assert.deepEqual([told['type'], told['reason'], told['again']], ['failed', 'STALE_GENERATION', true]);
    assert.equal(reasonOf(await dest.phase('m', MigrationPhase.FAILED)), 'STALE_GENERATION');
  },
);

test('a VMM that exits fails the migration', UFFD, async (t) => {
  const { dest, vmm } = await held(t);
  await vmm.kill();
  assert.equal(reasonOf(await dest.phase('m', MigrationPhase.FAILED)), 'VMM_EXITED');
});
