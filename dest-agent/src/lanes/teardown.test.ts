import assert from 'node:assert/strict';
import { test } from 'node:test';
import { content, frameOf, seen, SIGBUS } from '../../test/pages.ts';
import { honestFault, startRig } from '../../test/rig.ts';
import { lacking } from '../../test/toucher.ts';
import { BUDGET, until } from '../../test/wait.ts';
import { poisonAbsent } from './teardown.ts';

const POISON = { ...BUDGET, skip: lacking('userfaultfd by syscall', 'MISSING on memfd', 'UFFDIO_POISON') };
const REMOVE = { ...BUDGET, skip: POISON.skip || lacking('EVENT_REMOVE') };

for (const memory of ['memfd', 'anonymous'] as const)
  test(
    `${memory}: after poison a missing page is a SIGBUS, for who waits already and who comes later; what is there stays`,
    POISON,
    async (t) => {
      const rig = await startRig(t, { memory });
      const source = rig.faultPeer();
      rig.lane.useStream(source);
      rig.lane.start();
      rig.ledger.setZero(0, 1);
      const touch = rig.toucher.touch(0, 1);
      const [fault] = [await source.ask(0)];
      source.reply(fault.faultId, frameOf(1, 1));
      assert.deepEqual(await touch, seen(content(1)));
      const waits = rig.toucher.touch(0, 2);
      await source.ask(1);
      assert.deepEqual(await poisonAbsent(rig.memory, rig.ledger), { pages: 15, refused: undefined });
      assert.deepEqual(await waits, SIGBUS);
      assert.deepEqual(await rig.toucher.touch(1, 15), SIGBUS);
      assert.deepEqual(await rig.toucher.touch(1, 1), seen(content(1)));
      // Known to be zero, but nobody is left to say so: a guest that has lost pages does not go on.
      assert.deepEqual(await rig.toucher.touch(1, 0), SIGBUS);
    },
  );

test('a page that turns out to be there does not keep those behind it from being poisoned', POISON, async (t) => {
  const rig = await startRig(t, { memory: 'anonymous' });
  const [region] = rig.memory.layout.regions;
  assert(region);
  assert.equal(rig.memory.copy({ region, firstPage: 5, pageCount: 1 }, content(5), 0).kind, 'done');
  assert.deepEqual(await poisonAbsent(rig.memory, rig.ledger), { pages: 15, refused: undefined });
  for (const page of [4, 6, 15]) assert.deepEqual(await rig.toucher.touch(0, page), SIGBUS);
  assert.deepEqual(await rig.toucher.touch(0, 5), seen(content(5)));
});

test('a range that is just being given back does not keep pages from being poisoned', REMOVE, async (t) => {
  const rig = await startRig(t, { memory: 'anonymous', removeEvents: true });
  rig.lane.useStream(rig.faultPeer());
  // Nobody reads events yet, so the remover stands in the kernel and every install is refused with EAGAIN.
  const removed = rig.toucher.remove(0, 3, 2);
  const [region] = rig.memory.layout.regions;
  assert(region);
  // EEXIST or done before it, EAGAIN from then on.
  await until(
    'the event is pending',
    () =>
      rig.memory.wake({ region, firstPage: 0, pageCount: 1 }).kind === 'again' ||
      rig.memory.copy({ region, firstPage: 0, pageCount: 1 }, content(0), 0).kind === 'again',
  );
  await poisonAbsent(rig.memory, rig.ledger);
  await removed;
  for (const page of [1, 2, 5, 15]) assert.deepEqual(await rig.toucher.touch(1, page), SIGBUS);
});

test('a poisoned page is no fault any more: the source is asked for nothing', POISON, async (t) => {
  const rig = await startRig(t);
  const source = rig.faultPeer();
  source.answers = honestFault;
  rig.lane.useStream(source);
  rig.lane.start();
  assert.deepEqual(await poisonAbsent(rig.memory, rig.ledger), { pages: 16, refused: undefined });
  assert.deepEqual(await rig.toucher.touch(0, 3), SIGBUS);
  assert.equal(source.asked.length, 0);
});
