/** Stage-2 faults that come as requests on a `pagewake/1` channel, one at a time and many together. */
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { MigrationPhase } from '@pagewake/proto';
import { handOver, regionOf, reasonOf, socketOf, startDest, startVmm } from '../../test/agent.ts';
import { startFakeSource, type SourceScript } from '../../test/fake-source.ts';
import { content, PAGE_BYTES, seen } from '../../test/pages.ts';
import { lacking, type Toucher } from '../../test/toucher.ts';
import { BUDGET } from '../../test/wait.ts';

const UFFD = { ...BUDGET, skip: lacking('userfaultfd by syscall', 'MISSING on memfd') };
const PAGES = 64;
const GPA = 2 ** 32;
const READY = { type: 'ready' };

/** Prefetch rests: only what is asked for comes. */
async function startRig(t: TestContext, script: Partial<SourceScript> = {}) {
  const source = await startFakeSource(t, { pages: PAGES, ...script });
  const dest = await startDest(t);
  await dest.start(source.address);
  await dest.client.pause({ migrationId: 'm' });
  const vmm = await startVmm(t, { pages: PAGES });
  handOver(vmm, socketOf(dest), {
    fds: ['uffd', 'memfd', 'bitmap'],
    more: { regions: [{ ...regionOf(vmm), gpa_start: GPA }] },
  });
  return { source, dest, vmm };
}

const ask = (vmm: Toucher, id: number, place: Readonly<Record<string, number>>): void =>
  vmm.send(JSON.stringify({ type: 'stage2_fault', id, vcpu: 0, ...place }));
const batchOf = (pages: readonly number[]): string =>
  JSON.stringify({
    type: 'stage2_faults',
    faults: pages.map((page) => ({ id: page, vcpu: 0, gpa: GPA + page * PAGE_BYTES })),
  });
const resolved = (id: number, page: number) => ({ id, offset: page * PAGE_BYTES, len: PAGE_BYTES });

test(
  'who asks for one page at a time is answered for one at a time, by offset or by guest address',
  UFFD,
  async (t) => {
    const { vmm } = await startRig(t);
    assert.deepEqual(await vmm.message(), READY);
    ask(vmm, 7, { offset: 3 * PAGE_BYTES });
    assert.deepEqual(await vmm.message(), { type: 'resolved', ...resolved(7, 3) });
    ask(vmm, 8, { gpa: GPA + 4 * PAGE_BYTES });
    assert.deepEqual(await vmm.message(), { type: 'resolved', ...resolved(8, 4) });
    ask(vmm, 9, { gpa: GPA + 4 * PAGE_BYTES, offset: 4 * PAGE_BYTES });
    assert.deepEqual(await vmm.message(), { type: 'resolved', ...resolved(9, 4) });
    assert.deepEqual(await vmm.touch(0, 4), seen(content(4)));
  },
);

test(
  'who asks for many together is answered for many together, each once, and for a single one in the same way',
  UFFD,
  async (t) => {
    const { dest, vmm } = await startRig(t);
    assert.deepEqual(await vmm.message(), READY);
    const asked = Array.from({ length: PAGES / 2 }, (_, i) => i * 2);
    vmm.send(batchOf(asked));
    const answered: { readonly id: number }[] = [];
    const hear = async (): Promise<void> => {
      const { type, pages } = await vmm.message();
      assert.equal(type, 'all_resolved');
      answered.push(...(pages as { readonly id: number }[]));
    };
    while (answered.length < asked.length) await hear();
    assert.deepEqual(
      answered.toSorted((a, b) => a.id - b.id),
      asked.map((page) => resolved(page, page)),
    );
    for (const page of [0, PAGES - 2]) assert.deepEqual([await vmm.bit(page), await vmm.bit(page + 1)], [false, true]);
    // It has shown that it understands that.
    ask(vmm, 100, { offset: 2 * PAGE_BYTES });
    assert.deepEqual(await vmm.message(), { type: 'all_resolved', pages: [resolved(100, 2)] });
    const { faults } = await dest.get('m');
    assert.equal(faults?.stage2, BigInt(asked.length + 1));
  },
);

test('what is asked for before the source is opened waits, and is answered', UFFD, async (t) => {
  const open = Promise.withResolvers<void>();
  const { dest, vmm } = await startRig(t, { onOpen: () => open.promise });
  ask(vmm, 1, { offset: 0 });
  await dest.phase('m', MigrationPhase.OPENING);
  open.resolve();
  const told = [await vmm.message(), await vmm.message()];
  assert.deepEqual(told, [READY, { type: 'resolved', ...resolved(1, 0) }]);
});

for (const [law, message, pattern] of [
  ['guest address and offset of different pages', { offset: 0, gpa: GPA + PAGE_BYTES }, /are not the same page/],
  ['a guest address that no region has', { gpa: GPA + PAGES * PAGE_BYTES }, /is no page that the VMM handed over/],
  ['neither offset nor guest address', {}, /neither offset nor gpa/],
] as const)
  test(`${law} in a fault fails the migration, and the VMM is told`, UFFD, async (t) => {
    const { dest, vmm } = await startRig(t);
    assert.deepEqual(await vmm.message(), READY);
    ask(vmm, 1, message);
    const told = await vmm.message();
    assert.deepEqual([told['type'], told['reason']], ['failed', 'BAD_HANDSHAKE']);
    assert.match(String(told['message']), pattern);
    assert.equal(reasonOf(await dest.phase('m', MigrationPhase.FAILED)), 'BAD_HANDSHAKE');
    await vmm.channelClosed();
  });
