import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checksum } from '@pagewake/native';
import { Encoding, ErrorReason } from '@pagewake/proto';
import { CHECKSUM_LIES, content, frameOf, LIES, seen, sparseFrameOf, zeros } from '../../test/pages.ts';
import { honestFault, honestRange, startRig } from '../../test/rig.ts';
import { lacking } from '../../test/toucher.ts';
import { BUDGET, until } from '../../test/wait.ts';

const UFFD = { ...BUDGET, skip: lacking('userfaultfd by syscall', 'MISSING on memfd', 'ZEROPAGE on memfd') };

const CREDIT_BYTES = 1024 * 1024;

for (const memory of ['memfd', 'anonymous'] as const)
  test(
    `${memory}: prefetch alone makes the VM whole, a credit of 1 MiB at a time, each page asked for once`,
    UFFD,
    async (t) => {
      const pages = 600;
      const rig = await startRig(t, { memory, pages });
      rig.ledger.setZero(100, 50);
      rig.lane.start();
      const source = rig.bulkPeer();
      rig.bulk.useStream(source);
      const inFlight = source.asked.map((range) => range.pageCount * 4096);
      const sum = (bytes: readonly number[]): number => bytes.reduce((total, n) => total + n, 0);
      assert(sum(inFlight) >= CREDIT_BYTES && sum(inFlight.slice(0, -1)) < CREDIT_BYTES, inFlight.join(' '));
      source.answers = honestRange;
      for (const range of source.asked.slice()) source.reply(range.rangeId, honestRange(range), true);
      await rig.posted('whole');
      const asked = source.asked.flatMap((r) => Array.from({ length: r.pageCount }, (_, i) => r.firstPage + i));
      assert.equal(new Set(asked).size, asked.length, 'a page was asked for twice');
      assert.equal(asked.length, pages - 50);
      assert(!asked.some((page) => page >= 100 && page < 150), 'a page known to be zero was asked for');
      assert(source.asked.every((range) => range.pageCount <= 64));
      assert.equal(rig.bulkCounters.get('pagesInstalled'), pages - 50);
      for (const page of [0, 63, 64, 599]) assert.deepEqual(await rig.toucher.touch(0, page), seen(content(page)));
      assert.deepEqual(await rig.toucher.touch(0, 120), seen(zeros));
      assert.equal(rig.posts.filter((message) => message.type === 'whole').length, 1);
    },
  );

test('a range may come in pieces, of every encoding', UFFD, async (t) => {
  const rig = await startRig(t);
  rig.lane.start();
  const source = rig.bulkPeer();
  rig.bulk.useStream(source);
  const range = await source.ask(0);
  source.reply(range.rangeId, frameOf(0, 3, Encoding.LZ4), false);
  source.reply(range.rangeId, frameOf(3, 5, Encoding.ZERO), false);
  source.reply(range.rangeId, frameOf(8, 8, Encoding.RAW), true);
  await rig.posted('whole');
  assert.deepEqual(await rig.toucher.touch(0, 2), seen(content(2)));
  assert.deepEqual(await rig.toucher.touch(0, 5), seen(zeros));
  assert.deepEqual(await rig.toucher.touch(0, 15), seen(content(15)));
});

test(
  'zeros that the source found are noted and not installed; only a thread that waits for one is given a page',
  UFFD,
  async (t) => {
    for (const memory of ['memfd', 'anonymous'] as const) {
      const rig = await startRig(t, { memory });
      const faults = rig.faultPeer();
      rig.lane.useStream(faults);
      rig.lane.start();
      const source = rig.bulkPeer();
      rig.bulk.useStream(source);
      const range = await source.ask(0);
      const touched = rig.toucher.touch(0, 4);
      await until('the fault waits for prefetch', () => rig.counters.get('fromPrefetchInFlight') === 1 || undefined);
      source.reply(range.rangeId, sparseFrameOf(0, 10, [0, 2, 4, 3, 9, 1]), false);
      source.reply(range.rangeId, frameOf(10, 6, Encoding.ZERO), true);
      await rig.posted('whole');
      assert.deepEqual(await touched, seen(zeros));
      // Nobody can look beforehand whether anonymous memory is empty: there they are installed.
      const [present, zero] = memory === 'memfd' ? [5, 11] : [16, 0];
      assert.deepEqual(rig.ledger.counts(), { missing: 0, requested: 0, present, zero, removed: 0 });
      assert.equal(rig.bulkCounters.get('pagesInstalled'), 16);
      for (const page of [2, 3, 7, 8]) assert.deepEqual(await rig.toucher.touch(0, page), seen(content(page)));
      for (const page of [0, 1, 5, 6, 9, 10, 15]) assert.deepEqual(await rig.toucher.touch(0, page), seen(zeros));
      assert.equal(faults.asked.length, 0);
    }
  },
);

test('anonymous memory that holds something where the source found zeros ends the migration', UFFD, async (t) => {
  const rig = await startRig(t, { memory: 'anonymous', prefill: { page: 3, byte: 0x77 } });
  const source = rig.bulkPeer();
  rig.bulk.useStream(source);
  source.reply((await source.ask(0)).rangeId, sparseFrameOf(0, 10, [2, 4]), false);
  assert.match((await rig.posted('fatal')).error.message, /page 3 of region 0 .* with other content/);
});

test('a sparse frame whose table is none, or whose content is not what was summed, is refused', UFFD, async (t) => {
  const right = sparseFrameOf(0, 10, [1, 2]);
  const short = right.payload.subarray(4096);
  for (const [lie, reason] of [
    [{ payload: short, checksum: checksum(short, 0, short.length, 0, 0) }, ErrorReason.MALFORMED_FRAME],
    [{ payload: Buffer.from(right.payload).fill(1, 0, 1) }, ErrorReason.CHECKSUM_MISMATCH],
    [
      { payload: Buffer.from(right.payload).fill(2, right.payload.length - 12, right.payload.length - 11) },
      ErrorReason.CHECKSUM_MISMATCH,
    ],
  ] as const) {
    const rig = await startRig(t);
    const source = rig.bulkPeer();
    rig.bulk.useStream(source);
    for (let i = 0; i < 3; i++) source.reply((await source.ask(i)).rangeId, sparseFrameOf(0, 10, [1, 2], lie), false);
    assert.equal((await rig.posted('fatal')).error.reason, reason);
    assert.equal(rig.ledger.counts().present + rig.ledger.counts().zero, 0);
  }
});

for (const [reason, lies] of [
  [ErrorReason.CHECKSUM_MISMATCH, CHECKSUM_LIES],
  [ErrorReason.MALFORMED_FRAME, LIES],
] as const)
  for (const [law, frame] of lies)
    test(
      `${law}: given back and asked for again; three in a row are ${ErrorReason[reason]}; nothing is installed`,
      UFFD,
      async (t) => {
        const rig = await startRig(t);
        rig.lane.start();
        const source = rig.bulkPeer();
        rig.bulk.useStream(source);
        for (let i = 0; i < 3; i++) source.reply((await source.ask(i)).rangeId, frame(0), false);
        const { error } = await rig.posted('fatal');
        assert.equal(error.reason, reason, error.message);
        assert.equal(rig.bulkCounters.get('badFrames'), 3);
        assert.equal(rig.bulkCounters.get('pagesInstalled'), 0);
        assert.equal(rig.ledger.counts().present, 0);
        const found = Buffer.alloc(4096);
        const [region] = rig.memory.layout.regions;
        assert(region);
        rig.memory.readBack({ region, firstPage: 0, pageCount: 1 }, found);
        assert.deepEqual(found, zeros);
      },
    );

test('a range that ends early, or goes on past its end, is MALFORMED_FRAME', UFFD, async (t) => {
  for (const [pages, done] of [
    [15, true],
    [16, false],
  ] as const) {
    const rig = await startRig(t);
    const source = rig.bulkPeer();
    rig.bulk.useStream(source);
    for (let i = 0; i < 3; i++) source.reply((await source.ask(i)).rangeId, frameOf(0, pages), done);
    const { error } = await rig.posted('fatal');
    assert.equal(error.reason, ErrorReason.MALFORMED_FRAME);
    assert.equal(rig.bulkCounters.get('pagesInstalled'), 0);
  }
});

test('one bad frame among good ones is asked for again; refusals count only in a row', UFFD, async (t) => {
  const rig = await startRig(t, { pages: 640 });
  rig.lane.start();
  const source = rig.bulkPeer();
  let count = 0;
  source.answers = (range) =>
    ++count % 3 === 0 ? frameOf(range.firstPage, range.pageCount, Encoding.RAW, { checksum: 1 }) : honestRange(range);
  rig.bulk.useStream(source);
  await rig.posted('whole');
  assert(rig.bulkCounters.get('badFrames') >= 3);
  assert(!rig.posts.some((message) => message.type === 'fatal'));
  assert.deepEqual(await rig.toucher.touch(0, 639), seen(content(639)));
});

test('after a refused frame the rest of its range is not installed', UFFD, async (t) => {
  const rig = await startRig(t);
  const source = rig.bulkPeer();
  rig.bulk.useStream(source);
  const range = await source.ask(0);
  source.reply(range.rangeId, frameOf(0, 4, Encoding.RAW, { checksum: 1 }), false);
  source.reply(range.rangeId, frameOf(4, 12), true);
  assert.equal(rig.ledger.counts().present, 0);
  assert.deepEqual([(await source.ask(1)).firstPage, (await source.ask(1)).pageCount], [0, 16]);
});

test('a fault moves prefetch to its neighbourhood', UFFD, async (t) => {
  const rig = await startRig(t, { pages: 1024 });
  const faults = rig.faultPeer();
  faults.answers = honestFault;
  rig.lane.useStream(faults);
  rig.lane.start();
  const source = rig.bulkPeer();
  rig.bulk.useStream(source);
  assert.deepEqual(await rig.toucher.touch(0, 800), seen(content(800)));
  const before = source.asked.length;
  // While faults come less is under way: nothing more is asked for before most of it has come.
  for (const range of source.asked.slice()) source.reply(range.rangeId, honestRange(range), true);
  const next = await until('the next range', () => source.asked[before]);
  assert.equal(next.firstPage, 768);
});

test('a pause asks for nothing more, and what is in flight still lands; resuming goes on', UFFD, async (t) => {
  const rig = await startRig(t, { pages: 1024 });
  rig.lane.start();
  const source = rig.bulkPeer();
  rig.bulk.useStream(source);
  rig.bulk.pause();
  const asked = source.asked.length;
  for (const range of source.asked.slice()) source.reply(range.rangeId, honestRange(range), true);
  assert.equal(rig.bulkCounters.get('rangesInFlight'), 0);
  assert.equal(source.asked.length, asked);
  assert.equal(rig.bulkCounters.get('pagesInstalled'), CREDIT_BYTES / 4096);
  source.answers = honestRange;
  rig.bulk.resume();
  await rig.posted('whole');
});

test('a new stream after a lost one asks for what is missing, paused or not only once it may', UFFD, async (t) => {
  const rig = await startRig(t, { pages: 200 });
  rig.lane.start();
  const lost = rig.bulkPeer();
  rig.bulk.useStream(lost);
  const first = await lost.ask(0);
  lost.reply(first.rangeId, frameOf(0, 10), false);
  rig.bulk.dropStream();
  assert.deepEqual(rig.ledger.counts(), { missing: 190, requested: 0, present: 10, zero: 0, removed: 0 });
  rig.bulk.pause();
  const found = rig.bulkPeer();
  found.answers = honestRange;
  rig.bulk.useStream(found);
  assert.equal(found.asked.length, 0);
  rig.bulk.resume();
  await rig.posted('whole');
  const asked = found.asked.reduce((sum, range) => sum + range.pageCount, 0);
  assert.equal(asked, 190);
  assert.equal(rig.bulkCounters.get('pagesInstalled'), 200);
});

test('a VM that needs nothing is whole at once', UFFD, async (t) => {
  const rig = await startRig(t);
  rig.ledger.setZero(0, 16);
  const source = rig.bulkPeer();
  rig.bulk.useStream(source);
  await rig.posted('whole');
  assert.equal(source.asked.length, 0);
});

test('faults and prefetch together resolve every page once and wake every thread', UFFD, async (t) => {
  const pages = 512;
  for (const memory of ['memfd', 'anonymous'] as const) {
    const rig = await startRig(t, { memory, pages, workers: 4 });
    const faults = rig.faultPeer();
    faults.answers = honestFault;
    const source = rig.bulkPeer();
    source.answers = honestRange;
    rig.lane.useStream(faults);
    rig.lane.start();
    rig.bulk.useStream(source);
    const work = [0, 1, 2, 3].map(async (worker) => {
      for (let i = 0; i < 32; i++) {
        const page = (i * 67 + worker * 31) % pages;
        assert.deepEqual(await rig.toucher.touch(worker, page), seen(content(page)));
      }
    });
    await Promise.all(work);
    await rig.posted('whole');
    await until(
      'every page was installed once',
      () => rig.counters.get('pagesInstalled') + rig.bulkCounters.get('pagesInstalled') === pages,
    );
  }
});

test(
  'while a guest is about to start, prefetch leaves it the cores for a moment, and then begins by itself',
  UFFD,
  async (t) => {
    for (const guestStarts of [true, false]) {
      const rig = await startRig(t);
      rig.lane.start();
      const source = rig.bulkPeer();
      source.answers = honestRange;
      rig.bulk.hold();
      rig.bulk.useStream(source);
      assert.equal(source.asked.length, 0);
      rig.bulk.go(guestStarts);
      assert.equal(source.asked.length > 0, !guestStarts);
      await rig.posted('whole');
    }
  },
);
