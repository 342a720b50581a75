import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import type { RacerStart } from '../../test/bulk-racer.ts';
import { content, frameOf, seen, zeros } from '../../test/pages.ts';
import { honestFault, honestRange, startRig } from '../../test/rig.ts';
import { lacking } from '../../test/toucher.ts';
import { BUDGET, until } from '../../test/wait.ts';
import { PAGE } from '../adapters/ledger.ts';
import type { FromLane, LaneToLane } from './messages.ts';

const REMOVE = {
  ...BUDGET,
  skip: lacking('userfaultfd by syscall', 'MISSING on memfd', 'ZEROPAGE on memfd', 'EVENT_REMOVE'),
};

for (const memory of ['memfd', 'anonymous'] as const) {
  test(
    `${memory}: a page given back while its fault is on the way is zeros, and the late frame is not installed`,
    REMOVE,
    async (t) => {
      const rig = await startRig(t, { memory, removeEvents: true });
      const source = rig.faultPeer();
      rig.lane.useStream(source);
      rig.lane.start();
      const touch = rig.toucher.touch(0, 6);
      const fault = await source.ask(0);
      await rig.toucher.remove(1, 6, 1);
      assert.deepEqual(await touch, seen(zeros));
      source.reply(fault.faultId, frameOf(6, 1));
      assert.deepEqual(await rig.toucher.touch(1, 6), seen(zeros));
      assert.equal(rig.counters.get('pagesInstalled'), 0);
      assert.equal(rig.counters.get('removedEvents'), 1);
      assert.equal(rig.ledger.state(6), PAGE.present);
    },
  );

  test(
    `${memory}: pages given back while their range is on the way are passed over; their neighbours are installed`,
    REMOVE,
    async (t) => {
      const rig = await startRig(t, { memory, removeEvents: true });
      rig.lane.useStream(rig.faultPeer());
      rig.lane.start();
      const source = rig.bulkPeer();
      rig.bulk.useStream(source);
      const range = await source.ask(0);
      await rig.toucher.remove(0, 0, 1);
      await rig.toucher.remove(0, 7, 3);
      source.reply(range.rangeId, honestRange(range), true);
      await rig.posted('whole');
      assert.equal(rig.bulkCounters.get('pagesInstalled'), 12);
      for (const page of [0, 7, 8, 9]) assert.deepEqual(await rig.toucher.touch(1, page), seen(zeros));
      for (const page of [1, 6, 10, 15]) assert.deepEqual(await rig.toucher.touch(1, page), seen(content(page)));
    },
  );

  test(
    `${memory}: who waits for a range of prefetch gets zeros as soon as the page is given back`,
    REMOVE,
    async (t) => {
      const rig = await startRig(t, { memory, removeEvents: true });
      rig.lane.useStream(rig.faultPeer());
      rig.lane.start();
      const source = rig.bulkPeer();
      rig.bulk.useStream(source);
      await source.ask(0);
      const touch = rig.toucher.touch(0, 9);
      await until('the fault waits for prefetch', () => rig.counters.get('fromPrefetchInFlight') === 1);
      await rig.toucher.remove(1, 8, 4);
      assert.deepEqual(await touch, seen(zeros));
    },
  );

  test(
    `${memory}: a page that was there, and one that never was, are zeros once given back, with nothing asked for`,
    REMOVE,
    async (t) => {
      const rig = await startRig(t, { memory, removeEvents: true });
      const source = rig.faultPeer();
      source.answers = honestFault;
      rig.lane.useStream(source);
      rig.lane.start();
      assert.deepEqual(await rig.toucher.touch(0, 3), seen(content(3)));
      await rig.toucher.remove(0, 3, 2);
      assert.deepEqual(await rig.toucher.touch(0, 3), seen(zeros));
      assert.deepEqual(await rig.toucher.touch(0, 4), seen(zeros));
      assert.equal(source.asked.length, 1);
    },
  );

  test(
    `${memory}: giving pages back, hundreds of times, against prefetch in another thread: always zeros, and others untouched`,
    REMOVE,
    async (t) => {
      const pages = 4096;
      const step = 3;
      const rig = await startRig(t, { memory, pages, removeEvents: true });
      const source = rig.faultPeer();
      source.answers = honestFault;
      rig.lane.useStream(source);
      rig.lane.start();
      const start: RacerStart = {
        regions: rig.regions,
        descriptors: rig.descriptors(),
        pid: rig.toucher.pid,
        traits: rig.traits,
        ledgerId: rig.ledger.id,
        faultCounters: rig.counters.buffer,
        step,
      };
      const worker = new Worker(new URL('../../test/bulk-racer.ts', import.meta.url), { workerData: start });
      const posts: FromLane[] = [];
      worker.on('message', (message: FromLane | LaneToLane) => {
        if (message.type === 'woken' || message.type === 'orphans') rig.deliver(message);
        else posts.push(message);
      });
      t.after(async () => {
        worker.postMessage('end');
        await once(worker, 'exit');
      });
      await until('prefetch has asked for its first ranges', () => rig.ledger.counts().requested > 0);
      assert.deepEqual(await rig.toucher.churn(0, 0, pages, step), { failed: 0, nonzero: 0 });
      await until('every page is somewhere', () => rig.ledger.isWhole());
      assert.deepEqual(await rig.toucher.churn(1, 1, 30, step), { failed: 0, nonzero: 0 });
      const found = Buffer.alloc(pages * 4096);
      const [region] = rig.memory.layout.regions;
      assert(region);
      assert.equal(rig.memory.readBack({ region, firstPage: 0, pageCount: pages }, found).kind, 'done');
      for (let page = 0; page < pages; page++) {
        const given = page % step === 0 || (page % step === 1 && page < 31);
        const holds = found.subarray(page * 4096, (page + 1) * 4096);
        assert(holds.equals(given ? zeros : content(page)), `page ${String(page)}`);
      }
      assert(!posts.some((message) => message.type === 'fatal'), JSON.stringify(posts));
      assert(rig.counters.get('removedEvents') >= pages / step);
    },
  );
}

test('a removal that the VMM says on its channel resolves who waits, and counts', REMOVE, async (t) => {
  const rig = await startRig(t, { removeEvents: true });
  const source = rig.faultPeer();
  rig.lane.useStream(source);
  rig.lane.start();
  const touch = rig.toucher.touch(0, 2);
  const fault = await source.ask(0);
  rig.lane.onRemovedMessage(2, 14);
  assert.deepEqual(await touch, seen(zeros));
  source.reply(fault.faultId, frameOf(2, 1));
  rig.lane.onRemovedMessage(0, 2);
  await rig.posted('whole');
  assert.equal(rig.counters.get('pagesInstalled'), 0);
});
