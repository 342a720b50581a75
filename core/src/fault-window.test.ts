import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { FaultWindow } from './fault-window.ts';

const PAGES = 131_072;

/** Faults of a guest that touches `pages` in turn; a page of a window that was asked for does not fault. */
function faultsOf(window: FaultWindow, pages: Iterable<number>): { readonly faults: number; readonly brought: number } {
  const there = new Set<number>();
  let faults = 0;
  for (const page of pages) {
    if (there.has(page)) continue;
    faults++;
    window.around(page, 0, PAGES);
    for (let p = window.from; p < window.end; p++) there.add(p);
  }
  return { faults, brought: there.size - faults };
}

function* random(count: number): Generator<number> {
  let state = 1;
  for (let i = 0; i < count; i++) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    yield (state >>> 8) % PAGES;
  }
}

const upwards = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

test('a guest that goes up or down through memory faults on one page in sixty', () => {
  assert(faultsOf(new FaultWindow(64), upwards(8192)).faults <= 8192 / 60);
  assert(faultsOf(new FaultWindow(64), upwards(8192).toReversed()).faults <= 8192 / 60);
});

test('two guests’ threads that go through memory at two places are seen as two', () => {
  const pages = upwards(4096).flatMap((i) => [i, 60_000 + i]);
  assert(faultsOf(new FaultWindow(64), pages).faults <= pages.length / 50);
});

test('random touches bring few pages along, and then none', () => {
  const window = new FaultWindow(64);
  const { faults, brought } = faultsOf(window, random(4000));
  assert(brought < faults, `${brought} pages came with ${faults} faults`);
  assert(window.size <= 2, `${window.size}`);
});

test('a guest that goes through memory again after random touches has its windows again', () => {
  const window = new FaultWindow(64);
  faultsOf(window, random(2000));
  faultsOf(
    window,
    upwards(200).map((i) => 100_000 + i),
  );
  assert.equal(window.size, 64);
});

test('a fault is in its window, which is in its region and never longer than the most', () => {
  const most = fc.integer({ min: 1, max: 256 });
  const region = fc.tuple(fc.nat(1000), fc.integer({ min: 1, max: 500 }));
  fc.assert(
    fc.property(most, region, fc.array(fc.nat(10_000), { maxLength: 200 }), (mostPages, [first, count], pages) => {
      const window = new FaultWindow(mostPages);
      for (const any of pages) {
        const page = first + (any % count);
        window.around(page, first, first + count);
        assert(window.from <= page && page < window.end);
        assert(window.from >= first && window.end <= first + count);
        assert(window.end - window.from <= mostPages);
      }
    }),
  );
});

test('a most of 1 is the page alone', () => {
  assert.deepEqual(faultsOf(new FaultWindow(1), upwards(500)), { faults: 500, brought: 0 });
});
