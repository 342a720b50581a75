import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { PAGE, PageLedger } from '../ts/index.ts';
import type { LaneData } from './ledger-lane.ts';

const PAGES = 1 << 15;

function shared(length: number): Uint8Array {
  return new Uint8Array(new SharedArrayBuffer(length));
}

async function race(lanes: readonly LaneData['lane'][], seed: number): Promise<void> {
  const ledger = PageLedger.create(PAGES);
  const [claims, waits, reports] = [shared(PAGES), shared(PAGES), shared(PAGES)];
  const gate = new Int32Array(new SharedArrayBuffer(4));
  const workers = lanes.map((lane, index) => {
    const workerData: LaneData = { ledgerId: ledger.id, lane, seed: seed + 7919 * index, claims, waits, reports, gate };
    return new Worker(new URL('ledger-lane.ts', import.meta.url), { workerData });
  });
  await Promise.all(workers.map((worker) => once(worker, 'online')));
  Atomics.store(gate, 0, 1);
  Atomics.notify(gate, 0);
  await Promise.all(workers.map((worker) => once(worker, 'exit')));

  // A removal may take a page before anybody claimed it; nothing else may.
  const removes = lanes.includes('remove');
  for (let page = 0; page < PAGES; page++) {
    const claimed = claims[page] ?? 0;
    const state = ledger.state(page);
    assert.ok(claimed === 1 || (claimed === 0 && state === PAGE.removed), `page ${page} was claimed ${claimed} times`);
    assert.ok(state === PAGE.present || (removes && state === PAGE.removed), `page ${page} ended in state ${state}`);
    assert.equal(reports[page], waits[page], `page ${page}: ${waits[page]} waited, ${reports[page]} reported`);
  }
  assert.equal(ledger.isWhole(), true);
  const { missing, requested, zero, present, removed } = ledger.counts();
  assert.deepEqual([missing, requested, zero, present + removed], [0, 0, 0, PAGES]);
  ledger.close();
}

for (const seed of [1, 2, 3]) {
  test(
    `a fault lane and a bulk lane claim each page once and wake each waiter (seed ${seed})`,
    { timeout: 60_000 },
    () => race(['fault', 'bulk'], seed),
  );
}

test('with removals among them the same holds', { timeout: 60_000 }, () => race(['fault', 'bulk', 'remove'], 5));

test('two bulk lanes never get the same run', { timeout: 60_000 }, () => race(['bulk', 'bulk'], 9));
