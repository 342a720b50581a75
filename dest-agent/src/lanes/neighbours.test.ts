import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { Encoding, ErrorReason } from '@pagewake/proto';
import type { FaultOnWire } from '../adapters/page-source.ts';
import { content, frameOf, seen, zeros } from '../../test/pages.ts';
import { honestFault, startRig } from '../../test/rig.ts';
import { lacking } from '../../test/toucher.ts';
import { BUDGET, until } from '../../test/wait.ts';

const UFFD = { ...BUDGET, skip: lacking('userfaultfd by syscall', 'MISSING on memfd', 'ZEROPAGE on memfd') };
const PAGES = 64;

async function start(t: TestContext, options: { readonly memory?: 'anonymous' } = {}) {
  const rig = await startRig(t, { pages: PAGES, windowPages: 16, ...options });
  const source = rig.faultPeer();
  rig.lane.useStream(source);
  rig.lane.start();
  return { rig, source };
}

const place = ({ page, pageCount }: FaultOnWire): readonly number[] => [page, pageCount];

for (const memory of [undefined, 'anonymous'] as const)
  test(
    `${memory ?? 'memfd'}: a fault is asked for first and the rest of its cluster behind it; a touch of a neighbour that came is no fault`,
    UFFD,
    async (t) => {
      const { rig, source } = await start(t, memory ? { memory } : {});
      source.answers = honestFault;
      assert.deepEqual(await rig.toucher.touch(0, 20), seen(content(20)));
      assert.deepEqual(source.asked.map(place), [
        [20, 0],
        [16, 4],
        [21, 11],
      ]);
      await until('the neighbours have come', () => rig.ledger.counts().present === 16);
      for (const page of [16, 31]) assert.deepEqual(await rig.toucher.touch(0, page), seen(content(page)));
      assert.equal(rig.counters.get('fromSource'), 1);
      assert.equal(rig.counters.get('pagesInstalled'), 1);
      assert.equal(rig.counters.get('neighboursInstalled'), 15);
    },
  );

test('a fault on a neighbour that is on its way is not asked for again, and is woken by it', UFFD, async (t) => {
  const { rig, source } = await start(t);
  const first = rig.toucher.touch(0, 0);
  const run = await source.ask(1);
  assert.deepEqual(place(run), [1, 15]);
  const second = rig.toucher.touch(1, 5);
  await until('the second fault is read', () => rig.counters.get('fromPrefetchInFlight') === 1);
  assert.equal(source.asked.length, 2);
  source.reply(run.faultId, frameOf(1, 3));
  source.reply(run.faultId, frameOf(4, 12));
  assert.deepEqual(await second, seen(content(5)));
  source.reply((await source.ask(0)).faultId, frameOf(0, 1));
  assert.deepEqual(await first, seen(content(0)));
});

test(
  'a stream that is lost gives its neighbours back; who waits for one asks for it on the next stream',
  UFFD,
  async (t) => {
    const { rig, source } = await start(t);
    const first = rig.toucher.touch(0, 0);
    await source.ask(1);
    const second = rig.toucher.touch(1, 5);
    await until('the second fault is read', () => rig.counters.get('fromPrefetchInFlight') === 1);
    rig.lane.dropStream();
    assert.equal(rig.ledger.counts().requested, 2);
    const next = rig.faultPeer();
    next.answers = honestFault;
    rig.lane.useStream(next);
    assert.deepEqual(await first, seen(content(0)));
    assert.deepEqual(await second, seen(content(5)));
  },
);

test('neighbours whose frame is refused are asked for again, though nobody touches them', UFFD, async (t) => {
  const { rig, source } = await start(t);
  const first = rig.toucher.touch(0, 0);
  const [fault, run] = [await source.ask(0), await source.ask(1)];
  source.reply(run.faultId, frameOf(1, 5));
  source.reply(run.faultId, { ...frameOf(6, 10), checksum: 1 });
  await rig.posted('alarm');
  const again = await source.ask(2);
  assert.deepEqual(place(again), [6, 10]);
  // What was on its way as the old request was given up.
  source.reply(run.faultId, frameOf(6, 10));
  assert.equal(rig.ledger.counts().present, 5);
  source.reply(again.faultId, frameOf(6, 10));
  source.reply(fault.faultId, frameOf(0, 1));
  assert.deepEqual(await first, seen(content(0)));
  assert.equal(rig.ledger.counts().present, 16);
  assert.equal(rig.counters.get('badFrames'), 1);
  assert.deepEqual(await rig.toucher.touch(1, 7), seen(content(7)));
});

test('a source whose frames for neighbours are refused again and again is not believed any more', UFFD, async (t) => {
  const { rig, source } = await start(t);
  const first = rig.toucher.touch(0, 0);
  for (const index of [1, 2, 3]) source.reply((await source.ask(index)).faultId, { ...frameOf(1, 15), checksum: 1 });
  const { error } = await rig.posted('fatal');
  assert.equal(error.reason, ErrorReason.CHECKSUM_MISMATCH);
  assert.equal(source.asked.length, 4);
  source.reply((await source.ask(0)).faultId, frameOf(0, 1));
  assert.deepEqual(await first, seen(content(0)));
});

test('neighbours that are zero come without payload', UFFD, async (t) => {
  const { rig, source } = await start(t);
  const first = rig.toucher.touch(0, 0);
  const [fault, run] = [await source.ask(0), await source.ask(1)];
  source.reply(run.faultId, frameOf(1, 15, Encoding.ZERO));
  source.reply(fault.faultId, frameOf(0, 1));
  assert.deepEqual(await first, seen(content(0)));
  assert.equal(rig.counters.get('neighboursInstalled'), 15);
  assert.deepEqual(await rig.toucher.touch(1, 5), seen(zeros));
});
