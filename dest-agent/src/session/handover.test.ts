/** What a VMM may hand over: memory that was in use, several files, regions by name, and on which socket. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { MigrationPhase } from '@pagewake/proto';
import { failure, handOver, reasonOf, regionOf, startDest, startVmm } from '../../test/agent.ts';
import { startFakeSource } from '../../test/fake-source.ts';
import { content, PAGE_BYTES, seen, SIGBUS } from '../../test/pages.ts';
import { lacking, type Toucher } from '../../test/toucher.ts';
import { BUDGET } from '../../test/wait.ts';

const UFFD = { ...BUDGET, skip: lacking('userfaultfd by syscall', 'MISSING on memfd') };
const PAGES = 64;
const READY = { type: 'ready' };

test('what nobody has run on is thrown away, and every page is the source’s', UFFD, async (t) => {
  const source = await startFakeSource(t, { pages: PAGES });
  const dest = await startDest(t);
  const { vmmSocket } = await dest.start(source.address);
  const vmm = await startVmm(t, { prefill: { page: 3, byte: 7 } });
  handOver(vmm, vmmSocket, { more: { content: 'discard' } });
  assert.deepEqual(await vmm.message(), READY);
  for (const page of [2, 3, 4]) assert.deepEqual(await vmm.touch(0, page), seen(content(page)));
  await dest.phase('m', MigrationPhase.COMPLETED);
});

test(
  'memory that a guest may run on is refused by a migration that did not begin it, and left as it is; the migration waits for its own',
  UFFD,
  async (t) => {
    const source = await startFakeSource(t, { pages: PAGES });
    const dest = await startDest(t);
    const { vmmSocket } = await dest.start(source.address);
    const vmm = await startVmm(t, { prefill: { page: 3, byte: 7 } });
    handOver(vmm, vmmSocket, { more: { content: 'live' } });
    const told = await vmm.message();
    assert.deepEqual([told['type'], told['reason'], told['again']], ['failed', 'BAD_HANDSHAKE', undefined]);
    assert.match(String(told['message']), /a guest may run on this memory/);
    assert.deepEqual(await vmm.touch(0, 3), seen(Buffer.alloc(PAGE_BYTES, 7)));
    assert.equal(source.opens.length, 0);
    assert.equal((await dest.get('m')).phase, MigrationPhase.AWAITING_VMM);
    const its = await startVmm(t);
    handOver(its, vmmSocket, { more: { content: 'discard' } });
    assert.deepEqual(await its.message(), READY);
    await dest.phase('m', MigrationPhase.COMPLETED);
  },
);

/** Two regions, a file each. */
const regionsOf = (vmm: Toucher, names: readonly string[]) => {
  const { base_host_virt_addr: base, size } = regionOf(vmm);
  return names.map((name, i) => ({
    ...{ name, size: size / 2, page_size: PAGE_BYTES, file_offset: 0, fd: i + 1 },
    base_host_virt_addr: base + (i * size) / 2,
    offset: (i * size) / 2,
  }));
};
const TWO_REGIONS = {
  regions: [
    { pageSizeBytes: PAGE_BYTES, pageCount: PAGES / 2 },
    { pageSizeBytes: PAGE_BYTES, pageCount: PAGES / 2 },
  ],
};
const TWO_FILES = ['uffd', 'memfd', 'memfd'] as const;

test('each region in a file of its own, in the order of the source’s names', UFFD, async (t) => {
  const source = await startFakeSource(t, { pages: PAGES, accepted: TWO_REGIONS });
  const dest = await startDest(t);
  const { vmmSocket } = await dest.start(source.address, { regionNames: ['second', 'first'] });
  const vmm = await startVmm(t, { files: 2 });
  handOver(vmm, vmmSocket, { fds: TWO_FILES, more: { regions: regionsOf(vmm, ['first', 'second']) } });
  assert.deepEqual(await vmm.message(), READY);
  const wanted = (page: number) => seen(content(page % 32, page < 32 ? 1 : 0));
  for (const page of [0, 31, 32, 63]) assert.deepEqual(await vmm.touch(0, page), wanted(page));
  await dest.phase('m', MigrationPhase.COMPLETED);
  for (let page = 0; page < PAGES; page++) assert.deepEqual(await vmm.touch(1, page), wanted(page));
});

test('poison reaches every file', { ...UFFD, skip: UFFD.skip || lacking('UFFDIO_POISON') }, async (t) => {
  const source = await startFakeSource(t, { pages: PAGES, accepted: TWO_REGIONS, bulk: () => undefined });
  const dest = await startDest(t);
  const { vmmSocket } = await dest.start(source.address);
  const vmm = await startVmm(t, { files: 2 });
  handOver(vmm, vmmSocket, { fds: TWO_FILES, more: { regions: regionsOf(vmm, ['first', 'second']) } });
  assert.deepEqual(await vmm.message(), READY);
  await dest.client.cancel({ migrationId: 'm', force: true });
  await dest.phase('m', MigrationPhase.CANCELLED);
  await vmm.channelClosed();
  for (const page of [0, 31, 32, 63]) assert.deepEqual(await vmm.touch(0, page), SIGBUS);
});

test('regions of other names are refused with both lists, and nothing is lost', UFFD, async (t) => {
  const source = await startFakeSource(t, { pages: PAGES });
  const dest = await startDest(t);
  const { vmmSocket } = await dest.start(source.address, { regionNames: ['/dev/shm/ram', '/dev/shm/ram1'] });
  const vmm = await startVmm(t, { files: 2 });
  handOver(vmm, vmmSocket, { fds: TWO_FILES, more: { regions: regionsOf(vmm, ['/dev/shm/x', '/dev/shm/y']) } });
  const told = await vmm.message();
  assert.deepEqual([told['type'], told['reason'], told['again']], ['failed', 'BAD_HANDSHAKE', true]);
  assert.match(String(told['message']), /"\/dev\/shm\/x", "\/dev\/shm\/y"; "\/dev\/shm\/ram", "\/dev\/shm\/ram1" were/);
  assert.equal(reasonOf(await dest.phase('m', MigrationPhase.FAILED)), 'BAD_HANDSHAKE');
});

// ── The socket ────────────────────────────────────────────────────────────────────────────────────────────────────

test('the VMM’s socket has the name that was asked for, in the agent’s folder', UFFD, async (t) => {
  const source = await startFakeSource(t, { pages: PAGES });
  const dest = await startDest(t);
  const { vmmSocket } = await dest.start(source.address, { vmmSocketName: 'qemu-web1_7.sock' });
  assert.equal(vmmSocket, join(dest.socketDir, 'qemu-web1_7.sock'));
  const vmm = await startVmm(t);
  handOver(vmm, vmmSocket);
  await dest.phase('m', MigrationPhase.COMPLETED);
});

test('a name that would leave the folder, or is no name, is INVALID_ARGUMENT', UFFD, async (t) => {
  const source = await startFakeSource(t, { pages: PAGES });
  const dest = await startDest(t);
  for (const vmmSocketName of ['..', '.', '../x', 'a/b', '/tmp/x', '.hidden', 'a b', 'a\0b', 'x'.repeat(65)]) {
    const { reason, message } = await failure(dest.start(source.address, { vmmSocketName }));
    assert.equal(reason, 'INVALID_ARGUMENT', vmmSocketName);
    assert.match(message, /vmm_socket_name/);
  }
  for (const regionNames of [
    ['a', 'a'],
    ['a', ''],
  ]) {
    const { reason, message } = await failure(dest.start(source.address, { regionNames }));
    assert.equal(reason, 'INVALID_ARGUMENT');
    assert.match(message, /region_names/);
  }
  assert.equal((await dest.client.list({})).migrations.length, 0);
});

test('a socket is one migration’s as long as that lasts', UFFD, async (t) => {
  const source = await startFakeSource(t, { pages: PAGES });
  const dest = await startDest(t);
  const name = { vmmSocketName: 'shared' };
  const { vmmSocket } = await dest.start(source.address, { migrationId: 'one', vmId: 'a', ...name });
  const { reason, message } = await failure(dest.start(source.address, { migrationId: 'two', vmId: 'b', ...name }));
  assert.equal(reason, 'MIGRATION_EXISTS');
  assert.match(message, /shared is that of one, a migration of VM a; give another vmm_socket_name/);
  assert(existsSync(vmmSocket), 'the socket of the first is left alone');
  await dest.client.cancel({ migrationId: 'one' });
  assert.equal((await dest.start(source.address, { migrationId: 'two', vmId: 'b', ...name })).vmmSocket, vmmSocket);
});
