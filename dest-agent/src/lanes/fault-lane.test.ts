import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Encoding, ErrorReason } from '@pagewake/proto';
import { CHECKSUM_LIES, content, frameOf, LIES, seen, SIGBUS, zeros } from '../../test/pages.ts';
import { honestFault, honestRange, startRig } from '../../test/rig.ts';
import { lacking } from '../../test/toucher.ts';
import { BUDGET, until } from '../../test/wait.ts';
import { PAGE } from '../adapters/ledger.ts';
import { poisonAbsent, unregisterAll } from './teardown.ts';

const UFFD = { ...BUDGET, skip: lacking('userfaultfd by syscall', 'MISSING on memfd', 'ZEROPAGE on memfd') };

for (const memory of ['memfd', 'anonymous'] as const) {
  test(
    `${memory}: the first, a middle and the last page are each fetched once, and the thread sees its content`,
    UFFD,
    async (t) => {
      const rig = await startRig(t, { memory });
      const source = rig.faultPeer();
      source.answers = honestFault;
      rig.lane.useStream(source);
      rig.lane.start();
      for (const page of [0, 7, 15]) assert.deepEqual(await rig.toucher.touch(0, page), seen(content(page)));
      assert.deepEqual(
        source.asked.map((fault) => fault.page),
        [0, 7, 15],
      );
      assert.deepEqual(await rig.toucher.touch(1, 7), seen(content(7)));
      assert.equal(rig.counters.get('fromSource'), 3);
      assert.equal(rig.counters.get('byCopy'), 3);
      assert.deepEqual(rig.ledger.counts(), { missing: 13, requested: 0, present: 3, zero: 0, removed: 0 });
    },
  );

  test(
    `${memory}: a page that the source found to be zero, and one in LZ4, are what they should be`,
    UFFD,
    async (t) => {
      const rig = await startRig(t, { memory });
      const source = rig.faultPeer();
      source.answers = ({ page }) => frameOf(page, 1, page === 0 ? Encoding.ZERO : Encoding.LZ4);
      rig.lane.useStream(source);
      rig.lane.start();
      assert.deepEqual(await rig.toucher.touch(0, 0), seen(zeros));
      assert.deepEqual(await rig.toucher.touch(0, 1), seen(content(1)));
      assert.equal(rig.counters.get('byZeropage'), 1);
    },
  );
}

test('two threads on one page are both woken by one fetch', UFFD, async (t) => {
  const rig = await startRig(t);
  const source = rig.faultPeer();
  rig.lane.useStream(source);
  rig.lane.start();
  const both = [rig.toucher.touch(0, 5), rig.toucher.touch(1, 5)];
  await until('both faults are read', () => rig.counters.get('total') === 2);
  const fault = await source.ask(0);
  source.reply(fault.faultId, frameOf(5, 1));
  assert.deepEqual(await Promise.all(both), [seen(content(5)), seen(content(5))]);
  assert.equal(source.asked.length, 1);
  assert.equal(rig.counters.get('byCopy'), 2);
});

test('a thread that writes gets the content first and its own bytes on top', UFFD, async (t) => {
  const rig = await startRig(t);
  const source = rig.faultPeer();
  source.answers = honestFault;
  rig.lane.useStream(source);
  rig.lane.start();
  assert.deepEqual(await rig.toucher.store(0, 3, 0xab), seen(Buffer.alloc(4096, 0xab)));
  assert.equal(source.asked.length, 1);
});

test('faults from before the lane looked are resolved once it does', UFFD, async (t) => {
  const rig = await startRig(t);
  const touch = rig.toucher.touch(0, 2);
  assert.equal(await rig.toucher.isMapped(2), false);
  const source = rig.faultPeer();
  source.answers = honestFault;
  rig.lane.useStream(source);
  rig.lane.start();
  assert.deepEqual(await touch, seen(content(2)));
});

for (const [law, frame] of CHECKSUM_LIES)
  test(`${law}: asked for again, and then right`, UFFD, async (t) => {
    const rig = await startRig(t);
    const source = rig.faultPeer();
    rig.lane.useStream(source);
    rig.lane.start();
    const touch = rig.toucher.touch(0, 4);
    const first = await source.ask(0);
    source.reply(first.faultId, frame(4));
    const second = await source.ask(1);
    assert.equal(second.page, 4);
    assert.equal(await rig.toucher.isMapped(4), false, 'a wrong page was installed');
    assert.equal(rig.counters.get('badFrames'), 1);
    source.reply(second.faultId, frameOf(4, 1));
    assert.deepEqual(await touch, seen(content(4)));
  });

for (const [reason, lies] of [
  [ErrorReason.CHECKSUM_MISMATCH, CHECKSUM_LIES.slice(0, 2)],
  [ErrorReason.MALFORMED_FRAME, LIES],
] as const)
  for (const [law, frame] of lies)
    test(
      `${law}, three times: ${ErrorReason[reason]}, and nobody was woken with it`,
      { ...UFFD, skip: UFFD.skip || lacking('UFFDIO_POISON') },
      async (t) => {
        const rig = await startRig(t);
        const source = rig.faultPeer();
        rig.lane.useStream(source);
        rig.lane.start();
        const touch = rig.toucher.touch(0, 4);
        for (let i = 0; i < 3; i++) source.reply((await source.ask(i)).faultId, frame(4));
        const { error } = await rig.posted('fatal');
        assert.equal(error.reason, reason, error.message);
        assert.equal(source.asked.length, 3);
        assert.equal(rig.ledger.state(4), PAGE.requested);
        assert.equal(await rig.toucher.isMapped(4), false);
        await poisonAbsent(rig.memory, rig.ledger);
        assert.deepEqual(await touch, SIGBUS);
      },
    );

test('refusals are counted by page: three pages with a bad frame each are no reason to give up', UFFD, async (t) => {
  const rig = await startRig(t);
  const source = rig.faultPeer();
  const lied = new Set<number>();
  source.answers = ({ page }) => {
    const honest = lied.has(page);
    lied.add(page);
    return frameOf(page, 1, Encoding.RAW, honest ? {} : { checksum: 7 });
  };
  rig.lane.useStream(source);
  rig.lane.start();
  for (const page of [1, 2, 3, 4]) assert.deepEqual(await rig.toucher.touch(0, page), seen(content(page)));
  assert.equal(rig.counters.get('badFrames'), 4);
  assert(!rig.posts.some((message) => message.type === 'fatal'));
});

test('an answer to a question that nobody asked changes nothing', UFFD, async (t) => {
  const rig = await startRig(t);
  const source = rig.faultPeer();
  rig.lane.useStream(source);
  rig.lane.start();
  source.reply(99, frameOf(4, 1));
  const touch = rig.toucher.touch(0, 4);
  const fault = await source.ask(0);
  source.reply(fault.faultId, frameOf(4, 1));
  source.reply(fault.faultId, frameOf(4, 1));
  assert.deepEqual(await touch, seen(content(4)));
  assert.equal(rig.counters.get('pagesInstalled'), 1);
});

test('answers out of order each find their page', UFFD, async (t) => {
  const rig = await startRig(t, { workers: 4 });
  const source = rig.faultPeer();
  rig.lane.useStream(source);
  rig.lane.start();
  const touches = [0, 1, 2, 3].map((worker) => rig.toucher.touch(worker, worker * 3));
  await source.ask(3);
  for (const fault of source.asked.toReversed()) source.reply(fault.faultId, frameOf(fault.page, 1));
  assert.deepEqual(
    await Promise.all(touches),
    [0, 3, 6, 9].map((page) => seen(content(page))),
  );
});

test(
  'after a lost stream every pending fault is asked for again, and every page ends present once',
  UFFD,
  async (t) => {
    const rig = await startRig(t, { workers: 4 });
    const lost = rig.faultPeer();
    rig.lane.useStream(lost);
    rig.lane.start();
    const touches = [0, 1, 2].map((worker) => rig.toucher.touch(worker, worker));
    await lost.ask(2);
    rig.lane.dropStream();
    assert(lost.cancelled);
    // One more comes while there is no stream at all.
    touches.push(rig.toucher.touch(3, 9));
    await until('the fourth fault is read', () => rig.counters.get('total') === 4);
    const found = rig.faultPeer();
    found.answers = honestFault;
    rig.lane.useStream(found);
    assert.deepEqual(
      await Promise.all(touches),
      [0, 1, 2, 9].map((page) => seen(content(page))),
    );
    assert.deepEqual(
      found.asked.map((fault) => fault.page).toSorted((a, b) => a - b),
      [0, 1, 2, 9],
    );
    assert.equal(rig.counters.get('pagesInstalled'), 4);
    assert.equal(rig.ledger.counts().present, 4);
  },
);

test('a fault on a page in flight by prefetch asks for nothing, and is woken once it lands', UFFD, async (t) => {
  const rig = await startRig(t, { memory: 'memfd' });
  const source = rig.faultPeer();
  const bulk = rig.bulkPeer();
  rig.lane.useStream(source);
  rig.lane.start();
  rig.bulk.useStream(bulk);
  const range = await bulk.ask(0);
  assert.deepEqual([range.firstPage, range.pageCount], [0, 16]);
  const touch = rig.toucher.touch(0, 11);
  await until('the fault is read', () => rig.counters.get('fromPrefetchInFlight') === 1);
  bulk.reply(range.rangeId, honestRange(range), true);
  assert.deepEqual(await touch, seen(content(11)));
  assert.equal(source.asked.length, 0);
  await until('the fault is counted', () => rig.counters.get('byWrite') === 1);
  await rig.posted('whole');
});

test('orphans of the bulk lane are fetched by the fault lane', UFFD, async (t) => {
  const rig = await startRig(t);
  const source = rig.faultPeer();
  source.answers = honestFault;
  const bulk = rig.bulkPeer();
  rig.lane.useStream(source);
  rig.lane.start();
  rig.bulk.useStream(bulk);
  await bulk.ask(0);
  const touches = [rig.toucher.touch(0, 3), rig.toucher.touch(1, 12)];
  await until('both faults wait for prefetch', () => rig.counters.get('fromPrefetchInFlight') === 2);
  rig.bulk.dropStream();
  assert.deepEqual(await Promise.all(touches), [seen(content(3)), seen(content(12))]);
  assert.deepEqual(rig.ledger.counts(), { missing: 14, requested: 0, present: 2, zero: 0, removed: 0 });
});

test('pages known to be zero are resolved with no request sent, for both kinds of memory', UFFD, async (t) => {
  for (const memory of ['memfd', 'anonymous'] as const) {
    const rig = await startRig(t, { memory });
    const source = rig.faultPeer();
    rig.lane.useStream(source);
    rig.ledger.setZero(0, 16);
    rig.lane.start();
    for (const page of [0, 8, 15]) assert.deepEqual(await rig.toucher.touch(0, page), seen(zeros));
    assert.equal(source.asked.length, 0);
    assert.equal(rig.counters.get('byZeropage'), 3);
  }
});

test(
  'minor faults are resolved by CONTINUE, with no request sent',
  { ...UFFD, skip: UFFD.skip || lacking('MINOR on memfd', 'UFFDIO_CONTINUE') },
  async (t) => {
    const rig = await startRig(t, { minor: true });
    const source = rig.faultPeer();
    const bulk = rig.bulkPeer();
    bulk.answers = honestRange;
    rig.lane.useStream(source);
    rig.lane.start();
    rig.bulk.useStream(bulk);
    await rig.posted('whole');
    for (const page of [0, 9, 15]) assert.deepEqual(await rig.toucher.touch(0, page), seen(content(page)));
    assert.equal(rig.counters.get('minor'), 3);
    assert.equal(rig.counters.get('byContinue'), 3);
    assert.equal(source.asked.length, 0);
  },
);

test(
  'with MINOR registered a fault on a page in flight is continued in the place of a wake and a second event',
  { ...UFFD, skip: UFFD.skip || lacking('MINOR on memfd', 'UFFDIO_CONTINUE') },
  async (t) => {
    const rig = await startRig(t, { minor: true });
    const bulk = rig.bulkPeer();
    rig.lane.useStream(rig.faultPeer());
    rig.lane.start();
    rig.bulk.useStream(bulk);
    const range = await bulk.ask(0);
    const touch = rig.toucher.touch(0, 6);
    await until('the fault is read', () => rig.counters.get('fromPrefetchInFlight') === 1);
    bulk.reply(range.rangeId, honestRange(range), true);
    assert.deepEqual(await touch, seen(content(6)));
    assert.equal(rig.counters.get('minor'), 0);
    assert.equal(rig.counters.get('byContinue'), 1);
  },
);

test('a stage-2 fault is resolved by write and wake, any other by COPY', UFFD, async (t) => {
  const rig = await startRig(t, { vcpus: [1] });
  const source = rig.faultPeer();
  source.answers = honestFault;
  rig.lane.useStream(source);
  rig.lane.start();
  assert.deepEqual(await rig.toucher.touch(0, 1), seen(content(1)));
  assert.deepEqual(await rig.toucher.touch(1, 2), seen(content(2)));
  assert.deepEqual(
    (['userSpace', 'stage2', 'byCopy', 'byWrite'] as const).map((name) => rig.counters.get(name)),
    [1, 1, 1, 1],
  );
});

test(
  'a stage-2 fault that came as a request is answered once its page is in the file, zero pages too',
  UFFD,
  async (t) => {
    const rig = await startRig(t);
    const source = rig.faultPeer();
    source.answers = honestFault;
    rig.lane.useStream(source);
    rig.lane.start();
    rig.ledger.setZero(7, 1);
    for (const [id, page] of [
      [41, 6],
      [42, 7],
      [43, 6],
    ] as const) {
      rig.lane.onStage2Requests([{ id, ledgerPage: page, parent: undefined }]);
      await until(`request ${String(id)} is answered`, () =>
        rig.posts.some(
          (m) => m.type === 'stage2-resolved' && m.pages.some((p) => p.id === id && p.ledgerPage === page),
        ),
      );
      const found = Buffer.alloc(4096);
      const [region] = rig.memory.layout.regions;
      assert(region);
      assert.equal(rig.memory.readBack({ region, firstPage: page, pageCount: 1 }, found).kind, 'done');
      assert.deepEqual(found, page === 7 ? zeros : content(page));
    }
    assert.equal(source.asked.length, 1);
  },
);

test('an event that was queued before its page came is woken, not fetched', UFFD, async (t) => {
  const rig = await startRig(t);
  const touch = rig.toucher.touch(0, 5);
  assert.equal(await rig.toucher.isMapped(5), false);
  const bulk = rig.bulkPeer();
  bulk.answers = honestRange;
  rig.bulk.useStream(bulk);
  await rig.posted('whole');
  const source = rig.faultPeer();
  rig.lane.useStream(source);
  rig.lane.start();
  assert.deepEqual(await touch, seen(content(5)));
  assert.equal(source.asked.length, 0);
});

test('unregistering wakes everybody', UFFD, async (t) => {
  const rig = await startRig(t);
  rig.lane.useStream(rig.faultPeer());
  rig.lane.start();
  const touches = [rig.toucher.touch(0, 1), rig.toucher.touch(1, 14)];
  await until('both faults are read', () => rig.counters.get('total') === 2);
  assert.deepEqual(unregisterAll(rig.memory), { exited: false, refused: undefined });
  assert.deepEqual(await Promise.all(touches), [seen(zeros), seen(zeros)]);
});

test('a VMM that exited while its page was on the way is told, and unregistering says so', UFFD, async (t) => {
  const rig = await startRig(t);
  const source = rig.faultPeer();
  rig.lane.useStream(source);
  rig.lane.start();
  rig.toucher.touch(0, 1).catch(() => undefined);
  const fault = await source.ask(0);
  await rig.toucher.kill();
  source.reply(fault.faultId, frameOf(1, 1));
  await rig.posted('vmm-exited');
  assert.deepEqual(unregisterAll(rig.memory), { exited: true, refused: undefined });
});

test('a zero that had to be tried again does not overwrite what a thread has stored meanwhile', UFFD, async (t) => {
  const rig = await startRig(t);
  rig.ledger.setZero(0, rig.toucher.pages);
  rig.lane.useStream(rig.faultPeer());
  rig.lane.start();
  // The kernel cannot be made to run out of memory here, so its first answer is given for it.
  const write = rig.memory.write.bind(rig.memory);
  let writes = 0;
  rig.memory.write = (run, bytes, offset) =>
    writes++ === 0 ? { kind: 'no-memory', bytes: 0 } : write(run, bytes, offset);
  rig.lane.onStage2Requests([{ id: 7, ledgerPage: 5, parent: undefined }]);
  await rig.toucher.store(0, 5, 0x41);
  await rig.posted('stage2-resolved');
  assert.equal(writes, 1);
  assert.deepEqual(await rig.toucher.touch(0, 5), seen(Buffer.alloc(4096, 0x41)));
});
