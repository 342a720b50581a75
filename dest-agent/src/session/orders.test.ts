/** What the orchestrator asks of a migration: pause, resume, cancel, watch, and arguments that make no sense. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { MigrationPhase } from '@pagewake/proto';
import { failure, handOver, startDest, startVmm } from '../../test/agent.ts';
import { startFakeSource } from '../../test/fake-source.ts';
import { content, seen, SIGBUS } from '../../test/pages.ts';
import { lacking, temporaryDir } from '../../test/toucher.ts';
import { BUDGET, until } from '../../test/wait.ts';

const UFFD = {
  ...BUDGET,
  skip: lacking('userfaultfd by syscall', 'MISSING on memfd', 'ZEROPAGE on memfd', 'UFFDIO_POISON'),
};
const PAGES = 64;
const READY = { type: 'ready' };
const DONE = { type: 'done' };

test('a pause stops prefetch and nothing else; resuming completes', UFFD, async (t) => {
  const source = await startFakeSource(t, { pages: 1024, bulk: () => undefined });
  const dest = await startDest(t);
  const { vmmSocket } = await dest.start(source.address);
  const vmm = await startVmm(t, { pages: 1024 });
  handOver(vmm, vmmSocket);
  assert.deepEqual(await vmm.message(), READY);
  const { migration } = await dest.client.pause({ migrationId: 'm' });
  assert.equal(migration?.phase, MigrationPhase.PAUSED);
  source.release();
  assert.deepEqual(await vmm.touch(0, 1000), seen(content(1000)));
  assert.equal((await dest.client.pause({ migrationId: 'm' })).migration?.phase, MigrationPhase.PAUSED);
  assert.equal((await dest.get('m')).phase, MigrationPhase.PAUSED);
  assert.equal((await dest.client.resume({ migrationId: 'm' })).migration?.phase, MigrationPhase.FILLING);
  assert.deepEqual(await vmm.message(), DONE);
});

test('paused before prefetch begins, it does not begin: only what is touched is asked for', UFFD, async (t) => {
  const source = await startFakeSource(t, { pages: PAGES });
  const dest = await startDest(t);
  const { vmmSocket } = await dest.start(source.address);
  assert.equal((await dest.client.pause({ migrationId: 'm' })).migration?.phase, MigrationPhase.AWAITING_VMM);
  const vmm = await startVmm(t);
  handOver(vmm, vmmSocket);
  assert.deepEqual(await vmm.message(), READY);
  assert.equal((await dest.get('m')).phase, MigrationPhase.PAUSED);
  assert.deepEqual(await vmm.touch(0, 40), seen(content(40)));
  assert.equal(source.ranges.length, 0);
  assert.equal((await dest.client.resume({ migrationId: 'm' })).migration?.phase, MigrationPhase.FILLING);
  assert.deepEqual(await vmm.message(), DONE);
});

test('a pause that is taken back before prefetch begins is none', UFFD, async (t) => {
  const open = Promise.withResolvers<void>();
  const source = await startFakeSource(t, { pages: PAGES, onOpen: () => open.promise });
  const dest = await startDest(t);
  const { vmmSocket } = await dest.start(source.address);
  await dest.client.pause({ migrationId: 'm' });
  const vmm = await startVmm(t);
  handOver(vmm, vmmSocket);
  await dest.phase('m', MigrationPhase.OPENING);
  assert.equal((await dest.client.resume({ migrationId: 'm' })).migration?.phase, MigrationPhase.OPENING);
  open.resolve();
  await dest.phase('m', MigrationPhase.COMPLETED);
});

test('pause, resume and cancel of a migration that has ended are WRONG_PHASE, which is named', UFFD, async (t) => {
  const source = await startFakeSource(t, { pages: PAGES });
  const dest = await startDest(t);
  const { vmmSocket } = await dest.start(source.address);
  const vmm = await startVmm(t);
  handOver(vmm, vmmSocket);
  await dest.phase('m', MigrationPhase.COMPLETED);
  for (const call of ['pause', 'resume', 'cancel'] as const) {
    const { reason, message } = await failure(dest.client[call]({ migrationId: 'm' }));
    assert.equal(reason, 'WRONG_PHASE');
    assert.match(message, /completed/);
  }
});

test(
  'before the VMM has come a migration is cancelled without force; its VM and its id are told apart afterwards',
  UFFD,
  async (t) => {
    const source = await startFakeSource(t, { pages: PAGES });
    const dest = await startDest(t);
    const { vmmSocket } = await dest.start(source.address);
    const { migration } = await dest.client.cancel({ migrationId: 'm' });
    assert.equal(migration?.phase, MigrationPhase.CANCELLED);
    assert.equal(migration.error?.message, 'cancelled by the orchestrator');
    await until('the socket is gone', () => !existsSync(vmmSocket));
    assert.equal((await failure(dest.start(source.address))).reason, 'MIGRATION_EXISTS');
    assert.equal((await dest.start(source.address, { migrationId: 'again' })).phase, MigrationPhase.AWAITING_VMM);
    assert.equal((await dest.client.list({})).migrations.length, 2);
  },
);

test(
  'once a guest may run cancelling needs force; then the VMM is told, and a missing page is a SIGBUS',
  UFFD,
  async (t) => {
    const source = await startFakeSource(t, { pages: PAGES, bulk: () => undefined, fault: () => undefined });
    const dest = await startDest(t);
    const { vmmSocket } = await dest.start(source.address);
    const vmm = await startVmm(t);
    handOver(vmm, vmmSocket);
    assert.deepEqual(await vmm.message(), READY);
    const waits = vmm.touch(0, 3);
    await until('the fault has come to the source', () => source.faults.length > 0 || source.ranges.length > 0);
    const { reason, message } = await failure(dest.client.cancel({ migrationId: 'm' }));
    assert.equal(reason, 'WRONG_PHASE');
    assert.match(message, /pagewake cancel --force/);
    const watched = dest.watch('m');
    await dest.client.cancel({ migrationId: 'm', force: true });
    assert.deepEqual(await waits, SIGBUS);
    const told = await vmm.message();
    assert.deepEqual([told['type'], told['reason']], ['failed', 'CANCELLED']);
    assert.deepEqual(await vmm.touch(1, 50), SIGBUS);
    assert.equal((await watched).at(-1)?.phase, MigrationPhase.CANCELLED);
  },
);

test('one migration a VM and an id; ids that nobody knows are UNKNOWN_MIGRATION everywhere', UFFD, async (t) => {
  const source = await startFakeSource(t, { pages: PAGES });
  const dest = await startDest(t);
  await dest.start(source.address);
  const sameVm = await failure(dest.start(source.address, { migrationId: 'other' }));
  assert.equal(sameVm.reason, 'MIGRATION_EXISTS');
  assert.match(sameVm.message, /VM demo is being migrated already, as m/);
  assert.equal((await failure(dest.start(source.address, { vmId: 'other' }))).reason, 'MIGRATION_EXISTS');
  for (const call of ['get', 'pause', 'resume', 'cancel'] as const)
    assert.equal((await failure(dest.client[call]({ migrationId: 'nobody' }))).reason, 'UNKNOWN_MIGRATION', call);
  assert.equal((await failure(dest.watch('nobody'))).reason, 'UNKNOWN_MIGRATION');
});

test('arguments that make no sense are INVALID_ARGUMENT, with the name of the argument', UFFD, async (t) => {
  const dest = await startDest(t);
  const good = { vmId: 'demo', sourceAddress: '127.0.0.1:1', generation: 1, token: Buffer.alloc(32) };
  for (const [request, named] of [
    [{ ...good, vmId: '' }, /vm_id/],
    [{ ...good, vmId: '../../etc/passwd' }, /vm_id/],
    [{ ...good, vmId: '.hidden' }, /vm_id/],
    [{ ...good, vmId: 'x'.repeat(65) }, /vm_id/],
    [{ ...good, migrationId: 'a b' }, /migration_id/],
    [{ ...good, sourceAddress: '' }, /source_address/],
    [{ ...good, sourceAddress: 'nowhere' }, /source_address.*nowhere/],
    [{ ...good, sourceAddress: '192.0.2.1:7701' }, /source_address.*plaintext/],
    [{ ...good, generation: 0 }, /generation/],
    [{ ...good, trace: { traceId: Buffer.alloc(3), spanId: Buffer.alloc(8) } }, /trace/],
  ] as const) {
    const { reason, message } = await failure(dest.client.start(request));
    assert.equal(reason, 'INVALID_ARGUMENT', message);
    assert.match(message, named);
  }
  assert.equal((await dest.client.list({})).migrations.length, 0);
});

test('a socket path that no Unix socket can have is INVALID_ARGUMENT, and says which', UFFD, async (t) => {
  const source = await startFakeSource(t, { pages: PAGES });
  const dest = await startDest(t, { socketDir: join(temporaryDir(t), 'd'.repeat(40)) });
  const { reason, message } = await failure(dest.start(source.address, { vmId: 'v'.repeat(64) }));
  assert.equal(reason, 'INVALID_ARGUMENT', message);
  assert.match(message, /too long for a Unix socket/);
});

test(
  'Watch refuses an interval that is too short, and says everything at once of a migration that has ended',
  UFFD,
  async (t) => {
    const source = await startFakeSource(t, { pages: PAGES });
    const dest = await startDest(t);
    await dest.start(source.address);
    const short = async (): Promise<void> => {
      for await (const _ of dest.client.watch({ migrationId: 'm', intervalMs: 10 }));
    };
    const { reason, message } = await failure(short());
    assert.equal(reason, 'INVALID_ARGUMENT');
    assert.match(message, /interval_ms is 10; at least 50/);
    await dest.client.cancel({ migrationId: 'm' });
    const views = await dest.watch('m');
    assert.deepEqual(
      views.map((view) => view.phase),
      [MigrationPhase.CANCELLED],
    );
  },
);
