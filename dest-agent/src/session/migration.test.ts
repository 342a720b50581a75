import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { GUEST_MEMFD_FLAG, MemoryFile } from '@pagewake/native';
import { MemoryTier, MigrationMode, MigrationPhase } from '@pagewake/proto';
import { handOver, RawPeer, reasonOf, regionOf, socketOf, startDest, startVmm } from '../../test/agent.ts';
import { startFakeSource } from '../../test/fake-source.ts';
import { content, seen, zeros } from '../../test/pages.ts';
import { lacking } from '../../test/toucher.ts';
import { BUDGET, until } from '../../test/wait.ts';

const UFFD = {
  ...BUDGET,
  skip: lacking('userfaultfd by syscall', 'MISSING on memfd', 'ZEROPAGE on memfd', 'UFFDIO_POISON'),
};
const PAGES = 64;
const READY = { type: 'ready' };
const DONE = { type: 'done' };

test(
  'a memfd, post-copy: ready, pages by fault and by prefetch, done, the source told, the socket gone',
  UFFD,
  async (t) => {
    const source = await startFakeSource(t, {
      pages: PAGES,
      zeroRuns: [{ region: 0, firstPages: [60], pageCounts: [4] }],
      bulk: () => undefined,
    });
    const dest = await startDest(t);
    const started = await dest.start(source.address);
    assert.equal(started.phase, MigrationPhase.AWAITING_VMM);
    assert.equal(started.vmmSocket, socketOf(dest));
    const watched = dest.watch('m');
    const vmm = await startVmm(t);
    handOver(vmm, started.vmmSocket, { vcpus: [vmm.threads[1] ?? 0] });
    assert.deepEqual(await vmm.message(), READY);
    assert.deepEqual(await vmm.touch(0, 62), seen(zeros));
    const touch = vmm.touch(1, 40);
    const filling = await dest.phase('m', MigrationPhase.FILLING);
    assert.deepEqual([filling.tier, filling.mode], [MemoryTier.MEMFD, MigrationMode.POST_COPY]);
    source.release();
    assert.deepEqual(await touch, seen(content(40)));
    assert.deepEqual(await vmm.message(), DONE);
    const views = await watched;
    const last = views.at(-1) ?? assert.fail();
    assert.equal(last.phase, MigrationPhase.COMPLETED);
    assert.equal(last.error, undefined);
    assert.deepEqual(
      [last.progress?.pagesTotal, last.progress?.pagesPresent, last.progress?.pagesZero],
      [64n, 64n, 4n],
    );
    assert.equal((last.progress?.pagesByFault ?? 0n) + (last.progress?.pagesByPrefetch ?? 0n), 60n);
    assert.deepEqual(
      [source.opens[0]?.vmId, source.opens[0]?.generation, source.opens[0]?.regions[0]?.pageCount],
      ['demo', 3, 64],
    );
    assert.equal(source.completes[0]?.pagesZero, 4n);
    assert.deepEqual(await vmm.touch(0, 10), seen(content(10)));
    await until('the socket is gone', () => !existsSync(started.vmmSocket));
  },
);

test('anonymous memory: everything by COPY, and who reads it afterwards sees the content', UFFD, async (t) => {
  const source = await startFakeSource(t, { pages: PAGES });
  const dest = await startDest(t);
  const { vmmSocket } = await dest.start(source.address);
  const vmm = await startVmm(t, { memory: 'anonymous' });
  handOver(vmm, vmmSocket, { fds: ['uffd'] });
  const done = await dest.phase('m', MigrationPhase.COMPLETED);
  assert.equal(done.tier, MemoryTier.ANONYMOUS);
  for (const page of [0, 31, 63]) assert.deepEqual(await vmm.touch(0, page), seen(content(page)));
});

test("Firecracker's handshake: served like any other, and not one byte goes back", UFFD, async (t) => {
  const source = await startFakeSource(t, { pages: PAGES });
  const dest = await startDest(t);
  const { vmmSocket } = await dest.start(source.address);
  const vmm = await startVmm(t, { memory: 'anonymous', removeEvents: true });
  vmm.handOver(vmmSocket, ['uffd'], JSON.stringify([{ ...regionOf(vmm), page_size_kib: 4096 }]));
  await dest.phase('m', MigrationPhase.COMPLETED);
  assert.deepEqual(await vmm.touch(0, 5), seen(content(5)));
  await vmm.channelClosed();
  assert.deepEqual(vmm.unread(), []);
});

test('a VM whose memory is all zeros is whole at once, with nothing asked for', UFFD, async (t) => {
  const source = await startFakeSource(t, {
    pages: PAGES,
    zeroRuns: [{ region: 0, firstPages: [0], pageCounts: [PAGES] }],
  });
  const dest = await startDest(t);
  const { vmmSocket } = await dest.start(source.address);
  const vmm = await startVmm(t);
  handOver(vmm, vmmSocket);
  assert.deepEqual(await vmm.message(), READY);
  assert.deepEqual(await vmm.message(), DONE);
  const done = await dest.phase('m', MigrationPhase.COMPLETED);
  assert.deepEqual([done.progress?.pagesPresent, done.progress?.pagesZero], [64n, 64n]);
  assert.equal(source.ranges.length, 0);
  assert.deepEqual(await vmm.touch(0, 9), seen(zeros));
});

test('eager: the VMM is told that it may run only once every page is there', UFFD, async (t) => {
  const source = await startFakeSource(t, { pages: PAGES, bulk: () => undefined });
  const dest = await startDest(t);
  const { vmmSocket } = await dest.start(source.address, { mode: MigrationMode.EAGER });
  const vmm = await startVmm(t, { register: false });
  handOver(vmm, vmmSocket, { fds: ['memfd'], registered: [] });
  await dest.phase('m', MigrationPhase.FILLING);
  await until('prefetch has asked', () => source.ranges.length > 0);
  assert.deepEqual(vmm.unread(), []);
  source.release();
  assert.deepEqual(await vmm.message(), READY);
  assert.deepEqual(await vmm.message(), DONE);
  await dest.phase('m', MigrationPhase.COMPLETED);
  assert.deepEqual(await vmm.touch(0, 63), seen(content(63)));
});

const GUEST_MEMFD = { ...BUDGET, skip: lacking('guest_memfd', 'guest_memfd mmap') };

function guestMemfd(t: { after(hook: () => void): void }): { file: MemoryFile; text: string } {
  const file = MemoryFile.createGuestMemfd(PAGES * 4096, GUEST_MEMFD_FLAG.mmap | GUEST_MEMFD_FLAG.initShared);
  t.after(() => file.close());
  const regions = [{ base_host_virt_addr: 2 ** 40, size: PAGES * 4096, offset: 0, page_size: 4096 }];
  const offer = { protocol: 'pagewake/1', vm: 'demo', regions, fds: ['guest_memfd'], registered: [], vcpus: [] };
  return { file, text: `${JSON.stringify(offer)}\n` };
}

test(
  'a guest_memfd and POST_COPY: NOT_TRAPPABLE, with what is missing, to the orchestrator and to the VMM',
  GUEST_MEMFD,
  async (t) => {
    const source = await startFakeSource(t, { pages: PAGES });
    const dest = await startDest(t);
    const { vmmSocket } = await dest.start(source.address, { mode: MigrationMode.POST_COPY });
    const { file, text } = guestMemfd(t);
    const vmm = new RawPeer(t, vmmSocket);
    vmm.send(text, [file.fd]);
    const failed = await dest.phase('m', MigrationPhase.FAILED);
    assert.equal(reasonOf(failed), 'NOT_TRAPPABLE');
    assert.match(failed.error?.message ?? '', /write\(\) to a guest_memfd/);
    assert.match(failed.error?.metadata['missing'] ?? '', /userfaultfd/);
    const told = await vmm.message();
    assert.deepEqual([told['type'], told['reason']], ['failed', 'NOT_TRAPPABLE']);
    assert.equal(source.opens.length, 0);
  },
);

test('a guest_memfd filled eagerly holds every page', GUEST_MEMFD, async (t) => {
  const source = await startFakeSource(t, {
    pages: PAGES,
    zeroRuns: [{ region: 0, firstPages: [8], pageCounts: [2] }],
  });
  const dest = await startDest(t);
  const { vmmSocket } = await dest.start(source.address);
  const { file, text } = guestMemfd(t);
  const vmm = new RawPeer(t, vmmSocket);
  vmm.send(text, [file.fd]);
  assert.deepEqual(await vmm.message(), READY);
  assert.deepEqual(await vmm.message(), DONE);
  const done = await dest.phase('m', MigrationPhase.COMPLETED);
  assert.deepEqual([done.tier, done.mode], [MemoryTier.GUEST_MEMFD_EAGER, MigrationMode.EAGER]);
  assert.match(done.modeReason, /cannot be trapped/);
  const found = Buffer.alloc(PAGES * 4096);
  assert.equal(file.load(found, 0, found.length, 0).kind, 'done');
  for (let page = 0; page < PAGES; page++)
    assert.deepEqual(
      found.subarray(page * 4096, (page + 1) * 4096),
      page === 8 || page === 9 ? zeros : content(page),
      `page ${String(page)}`,
    );
});

test('a stage-2 request is answered on the channel, and a removed range is zeros', UFFD, async (t) => {
  const pages = 1024;
  const at = (page: number): number => page * 4096;
  const source = await startFakeSource(t, { pages, bulk: () => undefined });
  const dest = await startDest(t);
  const { vmmSocket } = await dest.start(source.address);
  const vmm = await startVmm(t, { pages });
  handOver(vmm, vmmSocket);
  assert.deepEqual(await vmm.message(), READY);
  vmm.send(`{"type":"stage2_fault","id":7,"vcpu":0,"offset":${String(at(900) + 1)}}`);
  assert.deepEqual(await vmm.message(), { type: 'resolved', id: 7, offset: at(900), len: 4096 });
  assert.deepEqual(await vmm.touch(0, 900), seen(content(900)));
  vmm.send(`{"type":"removed","offset":${String(at(901))},"len":8192}`);
  assert.deepEqual(await vmm.message(), { type: 'removed', offset: at(901), len: 8192 });
  await until('the range is removed', async () => (await dest.get('m')).progress?.pagesRemoved === 2n);
  assert.deepEqual(await vmm.touch(0, 901), seen(zeros));
});

for (const [what, message] of [
  ['removes memory that it never handed over', '{"type":"removed","offset":65536,"len":4096}'],
  ['removes a part of a page', '{"type":"removed","offset":40960,"len":100}'],
  ['removes from the middle of a page on', '{"type":"removed","offset":40968,"len":4088}'],
  ['asks for a page beyond its memory', '{"type":"stage2_fault","id":8,"vcpu":0,"offset":65536}'],
] as const)
  test(
    `a VMM that ${what} is told that its migration has failed, and does not wait for an answer for ever`,
    UFFD,
    async (t) => {
      const source = await startFakeSource(t, { pages: 16, bulk: () => undefined });
      const dest = await startDest(t);
      const { vmmSocket } = await dest.start(source.address);
      const vmm = await startVmm(t, { pages: 16 });
      handOver(vmm, vmmSocket);
      assert.deepEqual(await vmm.message(), READY);
      vmm.send(message);
      assert.partialDeepStrictEqual(await vmm.message(), { type: 'failed', reason: 'BAD_HANDSHAKE' });
    },
  );

test('a VMM that closes its channel as soon as it is told done has a migration that completed', UFFD, async (t) => {
  const told = Promise.withResolvers<void>();
  const asked = Promise.withResolvers<void>();
  const source = await startFakeSource(t, {
    pages: PAGES,
    onComplete: () => {
      asked.resolve();
      return told.promise;
    },
  });
  const dest = await startDest(t);
  const { vmmSocket } = await dest.start(source.address);
  const vmm = await startVmm(t);
  handOver(vmm, vmmSocket);
  assert.deepEqual(await vmm.message(), READY);
  assert.deepEqual(await vmm.message(), DONE);
  await asked.promise;
  await vmm.kill();
  // A round trip of the agent's loop, in which it sees the end of the channel.
  await dest.get('m');
  await dest.get('m');
  told.resolve();
  const last = (await dest.watch('m')).at(-1);
  assert.equal(MigrationPhase[last?.phase ?? 0], 'COMPLETED', last?.error?.message ?? '');
});

test('a source that cannot be told is a note on a completed migration, not its failure', UFFD, async (t) => {
  const source = await startFakeSource(t, { pages: PAGES, onComplete: () => Promise.reject(new Error('no')) });
  const dest = await startDest(t);
  const { vmmSocket } = await dest.start(source.address);
  const vmm = await startVmm(t);
  handOver(vmm, vmmSocket);
  const done = await dest.phase('m', MigrationPhase.COMPLETED);
  assert.equal(reasonOf(done), 'INTERNAL');
});

test('a VMM that dies fails its migration with VMM_EXITED, paused or not', UFFD, async (t) => {
  for (const paused of [false, true]) {
    const source = await startFakeSource(t, { pages: PAGES, bulk: () => undefined });
    const dest = await startDest(t);
    const { vmmSocket } = await dest.start(source.address);
    const vmm = await startVmm(t);
    handOver(vmm, vmmSocket);
    await dest.phase('m', MigrationPhase.FILLING);
    if (paused) await dest.client.pause({ migrationId: 'm' });
    await vmm.kill();
    assert.equal(reasonOf(await dest.phase('m', MigrationPhase.FAILED)), 'VMM_EXITED');
    await until('the socket is gone', () => !existsSync(vmmSocket));
  }
});
