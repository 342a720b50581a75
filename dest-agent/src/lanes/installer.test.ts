import assert from 'node:assert/strict';
import { test } from 'node:test';
import { content, seen } from '../../test/pages.ts';
import { startRig, type Rig } from '../../test/rig.ts';
import { lacking } from '../../test/toucher.ts';
import { BUDGET } from '../../test/wait.ts';
import { PAGE } from '../adapters/ledger.ts';
import type { PlacedRun } from '../adapters/memory.ts';
import { PageInstaller, type InstallResult } from './installer.ts';

const UFFD = { ...BUDGET, skip: lacking('userfaultfd by syscall', 'MISSING on memfd') };

const run = (rig: Rig, firstPage: number, pageCount: number): PlacedRun => {
  const [region] = rig.memory.layout.regions;
  assert(region);
  return { region, firstPage, pageCount };
};

const contents = (first: number, count: number): Buffer =>
  Buffer.concat(Array.from({ length: count }, (_, i) => content(first + i)));

const installed = (result: InstallResult): number => {
  assert(result.kind === 'installed', JSON.stringify(result));
  return result.pages;
};

for (const memory of ['memfd', 'anonymous'] as const) {
  test(`${memory}: COPY over a run whose middle somebody filled with the same content is accepted`, UFFD, async (t) => {
    const rig = await startRig(t, { memory });
    assert.equal(rig.memory.copy(run(rig, 5, 1), content(5), 0).kind, 'done');
    const installer = new PageInstaller(rig.memory, rig.ledger);
    assert.deepEqual(rig.ledger.claimRun(4, 8, 4), { first: 4, count: 4 });
    assert.equal(rig.ledger.fault(5), 'waiting');
    const result = installer.install('copy', run(rig, 4, 4), contents(4, 4), 0);
    assert.equal(installed(result), 4);
    assert.deepEqual(result.kind === 'installed' && [...result.waiters], [5]);
    for (const page of [4, 5, 6, 7]) assert.deepEqual(await rig.toucher.touch(0, page), seen(content(page)));
    assert.equal(rig.ledger.counts().present, 4);
  });

  test(
    `${memory}: COPY over other content is an alarm that names the page, which stays what it was`,
    UFFD,
    async (t) => {
      const rig = await startRig(t, { memory });
      assert.equal(rig.memory.copy(run(rig, 5, 1), content(99), 0).kind, 'done');
      const installer = new PageInstaller(rig.memory, rig.ledger);
      rig.ledger.claimRun(4, 8, 4);
      const result = installer.install('copy', run(rig, 4, 4), contents(4, 4), 0);
      assert(result.kind === 'alarm', result.kind);
      assert.match(result.message, /page 5 of region 0 .* with other content/);
      assert.equal(rig.ledger.state(4), PAGE.present);
      for (const page of [5, 6, 7]) assert.equal(rig.ledger.state(page), PAGE.requested);
      assert.deepEqual(await rig.toucher.touch(0, 5), seen(content(99)));
    },
  );
}

test(
  'memory that was filled before it was registered: the same content is accepted, other content is an alarm',
  UFFD,
  async (t) => {
    for (const same of [true, false]) {
      const rig = await startRig(t, { memory: 'anonymous', prefill: { page: 3, byte: 0x77 } });
      const installer = new PageInstaller(rig.memory, rig.ledger);
      rig.ledger.claimRun(3, 4, 1);
      const result = installer.install('copy', run(rig, 3, 1), same ? Buffer.alloc(4096, 0x77) : content(3), 0);
      assert.equal(result.kind, same ? 'installed' : 'alarm');
    }
  },
);

test('zeros over a page that is not zero are an alarm, over one that is they are accepted', UFFD, async (t) => {
  const rig = await startRig(t);
  const installer = new PageInstaller(rig.memory, rig.ledger);
  rig.memory.zeropage(run(rig, 1, 1));
  rig.memory.copy(run(rig, 2, 1), content(2), 0);
  rig.ledger.claimRun(0, 3, 3);
  const result = installer.install('zeropage', run(rig, 0, 3), new Uint8Array(0), 0);
  assert(result.kind === 'alarm' && /page 2 of region 0/.test(result.message), JSON.stringify(result));
  assert.equal(rig.ledger.state(1), PAGE.present);
});

test('pages that are not requested any more are passed over, and their memory is left alone', UFFD, async (t) => {
  const rig = await startRig(t);
  const installer = new PageInstaller(rig.memory, rig.ledger);
  rig.ledger.claimRun(0, 16, 16);
  for (const page of [0, 7, 15]) rig.ledger.remove(page, 1, new Uint32Array(1));
  const result = installer.install('copy', run(rig, 0, 16), contents(0, 16), 0);
  assert.equal(installed(result), 13);
  assert.deepEqual(rig.ledger.counts(), { missing: 0, requested: 0, present: 13, zero: 0, removed: 3 });
  for (const page of [0, 7, 15]) assert.equal(await rig.toucher.isMapped(page), false);
  assert.deepEqual(await rig.toucher.touch(0, 8), seen(content(8)));
});

test('content is taken from where in the buffer it is said to lie', UFFD, async (t) => {
  const rig = await startRig(t);
  const installer = new PageInstaller(rig.memory, rig.ledger);
  rig.ledger.claimRun(2, 6, 4);
  const shifted = Buffer.concat([Buffer.alloc(100, 1), contents(2, 4)]);
  assert.equal(installed(installer.install('write', run(rig, 2, 2), shifted, 100)), 2);
  assert.equal(installed(installer.install('copy', run(rig, 4, 2), shifted.subarray(50), 50 + 2 * 4096)), 2);
  for (const page of [2, 3, 4, 5]) assert.deepEqual(await rig.toucher.touch(0, page), seen(content(page)));
});

test('a call that this memory does not know is an alarm, and its page is not called present', UFFD, async (t) => {
  const rig = await startRig(t, { memory: 'anonymous' });
  const installer = new PageInstaller(rig.memory, rig.ledger);
  rig.ledger.claimRun(0, 1, 1);
  const result = installer.install('write', run(rig, 0, 1), content(0), 0);
  assert(result.kind === 'alarm' && /write of page 0 of region 0 was refused/.test(result.message));
  assert.equal(rig.ledger.state(0), PAGE.requested);
});

test(
  'an install and a removal exclude each other, whether the kernel or a message tells of the removal',
  UFFD,
  async (t) => {
    const rig = await startRig(t);
    const installer = new PageInstaller(rig.memory, rig.ledger);
    const [region] = rig.memory.layout.regions;
    assert(region);
    rig.ledger.claimRun(0, 1, 1);
    rig.ledger.lockExclusive();
    // The lock does not nest: that it is asked for shows that it is taken.
    assert.throws(() => installer.install('copy', { region, firstPage: 0, pageCount: 1 }, content(0), 0), /EDEADLK/);
    rig.ledger.unlockExclusive();
    assert.equal(installer.install('copy', { region, firstPage: 0, pageCount: 1 }, content(0), 0).kind, 'installed');
  },
);
