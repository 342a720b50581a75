/** The bitmap of stage-2 faults: at every answer the page has its content and its bit is clear, whatever ran into whatever. */
import assert from 'node:assert/strict';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { test } from 'node:test';
import { content, frameOf, PAGE_BYTES, seen, zeros } from '../../test/pages.ts';
import { honestFault, honestRange, startRig, type Rig } from '../../test/rig.ts';
import { lacking, type Touch } from '../../test/toucher.ts';
import { BUDGET, until } from '../../test/wait.ts';
import { PAGE } from '../adapters/ledger.ts';
import { unregisterAll } from './teardown.ts';

const UFFD = { ...BUDGET, skip: lacking('userfaultfd by syscall', 'MISSING on memfd', 'ZEROPAGE on memfd') };
const REMOVE = { ...UFFD, skip: UFFD.skip || lacking('EVENT_REMOVE') };
const MINOR = { ...UFFD, skip: UFFD.skip || lacking('MINOR on memfd', 'UFFDIO_CONTINUE') };

const ask = (rig: Rig, ...pages: readonly number[]): void =>
  rig.lane.onStage2Requests(pages.map((page) => ({ id: page, ledgerPage: page, parent: undefined })));

const answered = (rig: Rig): readonly number[] =>
  rig.posts.flatMap((post) => (post.type === 'stage2-resolved' ? post.pages.map(({ id }) => id) : []));

const setBits = async (rig: Rig): Promise<number[]> => {
  const set: number[] = [];
  for (let page = 0; page < rig.toucher.pages; page++) if (await rig.toucher.bit(page)) set.push(page);
  return set;
};

const all = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

test('each way in which a page comes clears its bit, and no other bit', UFFD, async (t) => {
  const rig = await startRig(t, { bitmap: true, vcpus: [1] });
  const source = rig.faultPeer();
  source.answers = honestFault;
  rig.lane.useStream(source);
  rig.lane.start();
  rig.ledger.setZero(8, 8);
  assert.deepEqual(await setBits(rig), all(16));
  // By COPY, by write() and wake, by write() and an answer, by zeros of both kinds.
  assert.deepEqual(await rig.toucher.touch(0, 1), seen(content(1)));
  assert.deepEqual(await rig.toucher.touch(1, 2), seen(content(2)));
  ask(rig, 3);
  await until('page 3 is answered', () => answered(rig).includes(3));
  assert.deepEqual(await rig.toucher.touch(0, 9), seen(zeros));
  ask(rig, 10);
  await until('page 10 is answered', () => answered(rig).includes(10));
  assert.deepEqual(await setBits(rig), [0, 4, 5, 6, 7, 8, 11, 12, 13, 14, 15]);
  assert.deepEqual(await rig.toucher.touch(1, 3), seen(content(3)));
  assert.deepEqual(await rig.toucher.touch(1, 10), seen(zeros));
  // Prefetch: what is known to be zero keeps its bit, and whoever touches it asks.
  const bulk = rig.bulkPeer();
  bulk.answers = honestRange;
  rig.bulk.useStream(bulk);
  await rig.posted('whole');
  assert.deepEqual(await setBits(rig), [8, 11, 12, 13, 14, 15]);
  unregisterAll(rig.memory);
  assert.deepEqual(await setBits(rig), []);
});

test(
  'requests that come together are asked for together, and pages that are there are answered in one message',
  UFFD,
  async (t) => {
    const rig = await startRig(t, { bitmap: true });
    const source = rig.faultPeer();
    source.answers = honestFault;
    rig.lane.useStream(source);
    rig.lane.start();
    ask(rig, 4, 5, 6, 4);
    assert.deepEqual(
      source.asked.map((fault) => fault.page),
      [4, 5, 6],
    );
    await until('all are answered', () => answered(rig).length === 4);
    const before = rig.posts.length;
    ask(rig, 4, 5, 6);
    await nextTurn();
    assert.deepEqual(rig.posts.slice(before), [
      { type: 'stage2-resolved', pages: [4, 5, 6].map((page) => ({ id: page, ledgerPage: page })) },
    ]);
    assert.equal(rig.counters.get('byWrite'), 4);
    assert.equal(rig.counters.get('byWake'), 3);
    assert.deepEqual(
      (['stage2Exits', 'stage2ByWrite', 'stage2ByWake'] as const).map((name) => rig.counters.get(name)),
      [7, 4, 3],
    );
  },
);

test('the neighbours of a page that a vCPU asked for have clear bits as they come', UFFD, async (t) => {
  const rig = await startRig(t, { bitmap: true, windowPages: 8 });
  const source = rig.faultPeer();
  source.answers = honestFault;
  rig.lane.useStream(source);
  rig.lane.start();
  ask(rig, 4);
  await until('neighbours are there', () => rig.counters.get('neighboursInstalled') > 0);
  await until('page 4 is answered', () => answered(rig).includes(4));
  const present = all(16).filter((page) => rig.ledger.state(page) === PAGE.present);
  assert(present.length > 1, String(present.length));
  assert.deepEqual(
    await setBits(rig),
    all(16).filter((page) => !present.includes(page)),
  );
});

test(
  'a page that is in the file although the ledger calls it missing is not continued: its bit stays until the source has answered',
  MINOR,
  async (t) => {
    const rig = await startRig(t, { bitmap: true, minor: true });
    const [region] = rig.memory.layout.regions;
    assert(region);
    // By somebody else, and just what is to come.
    rig.memory.write({ region, firstPage: 5, pageCount: 1 }, content(5), 0);
    const source = rig.faultPeer();
    rig.lane.useStream(source);
    rig.lane.start();
    const touch = rig.toucher.touch(0, 5);
    const fault = await source.ask(0);
    assert.equal(rig.counters.get('minor'), 1);
    assert.equal(await rig.toucher.bit(5), true);
    source.reply(fault.faultId, frameOf(5, 1));
    assert.deepEqual(await touch, seen(content(5)));
    assert.equal(await rig.toucher.bit(5), false);
  },
);

test('a page with other content behind our back ends the migration, and its bit stays set', MINOR, async (t) => {
  const rig = await startRig(t, { bitmap: true, minor: true });
  const [region] = rig.memory.layout.regions;
  assert(region);
  rig.memory.write({ region, firstPage: 5, pageCount: 1 }, Buffer.alloc(PAGE_BYTES), 0);
  const source = rig.faultPeer();
  source.answers = honestFault;
  rig.lane.useStream(source);
  rig.lane.start();
  void rig.toucher.touch(0, 5).catch(() => undefined);
  const { error } = await rig.posted('fatal');
  assert.match(error.message, /page 5 of region 0 was in the VM's memory before it was installed/);
  assert.equal(await rig.toucher.bit(5), true);
});

/** A small generator of our own, so that a run can be told to somebody. */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

for (const seed of [1, 2, 3, 4])
  test(
    `faults, prefetch, removals and repeated requests in any order: each answer has its page and a clear bit, at the end none is set (seed ${seed})`,
    REMOVE,
    async (t) => {
      const pages = 256;
      const rig = await startRig(t, {
        bitmap: true,
        pages,
        vcpus: [1],
        removeEvents: true,
        windowPages: seed % 2 ? 1 : 8,
      });
      const next = random(seed);
      const removed = new Set<number>();
      const source = rig.faultPeer();
      source.answers = honestFault;
      rig.lane.useStream(source);
      rig.lane.start();
      rig.ledger.setZero(200, 40);
      const bulk = rig.bulkPeer();
      bulk.answers = (range) => (next(3) === 0 ? undefined : honestRange(range));
      let asked = 0;
      const expected = (page: number): Touch =>
        seen(removed.has(page) || (page >= 200 && page < 240) ? zeros : content(page));
      for (let step = 0; step < 300; step++) {
        const page = next(pages);
        switch (next(5)) {
          case 0:
            assert.deepEqual(await rig.toucher.touch(next(2), page), expected(page));
            break;
          case 1: {
            // The guest gives back what nobody asks for at the moment.
            removed.add(page);
            await rig.toucher.remove(0, page, 1);
            break;
          }
          case 2:
            if (step === 40) rig.bulk.useStream(bulk);
            await nextTurn();
            break;
          default: {
            const many = all(1 + next(6)).map(() => next(pages));
            asked += many.length;
            ask(rig, ...many);
            await until('all are answered', () => answered(rig).length === asked);
            for (const answeredPage of many) {
              assert.equal(await rig.toucher.bit(answeredPage), false, `page ${answeredPage}`);
              assert.deepEqual(await rig.toucher.touch(0, answeredPage), expected(answeredPage));
            }
          }
        }
      }
      bulk.answers = honestRange;
      rig.bulk.dropStream();
      const last = rig.bulkPeer();
      last.answers = honestRange;
      rig.bulk.useStream(last);
      await until('every page is somewhere', () => rig.ledger.isWhole());
      for (let page = 0; page < pages; page++)
        if (rig.ledger.state(page) === PAGE.present) assert.equal(await rig.toucher.bit(page), false, `page ${page}`);
      rig.lane.drain();
      rig.lane.stop();
      unregisterAll(rig.memory);
      assert.deepEqual(await setBits(rig), []);
      for (let page = 0; page < pages; page++)
        assert.deepEqual(await rig.toucher.touch(0, page), expected(page), `page ${page}`);
      assert.deepEqual(
        rig.posts.filter(({ type }) => type === 'fatal' || type === 'alarm'),
        [],
      );
    },
  );
