/** What a guest got done, from its heartbeats. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { heartbeatsOf, pagesAt, speeds } from '../guest/work.ts';

const WORK = [
  { atMs: 1000, pages: 0 },
  { atMs: 1100, pages: 100 },
  { atMs: 1400, pages: 100 },
  { atMs: 1500, pages: 300 },
];

test('work is on a straight line between two heartbeats, and exact at each', () => {
  assert.deepEqual(
    [1000, 1050, 1100, 1250, 1400, 1475].map((atMs) => pagesAt(WORK, atMs)),
    [0, 50, 100, 100, 100, 250],
  );
});

test('nothing is said of a time in which the guest was not watched', () => {
  for (const atMs of [999, 1501]) assert.throws(() => pagesAt(WORK, atMs), RangeError);
  assert.throws(() => pagesAt([], 1), RangeError);
});

test('spans of speed begin at the switchover, count to both sides of it and leave out what was not watched whole', () => {
  assert.deepEqual(speeds(WORK, 1150, 100), [
    { atMs: -50, pagesPerSecond: 500 },
    { atMs: 50, pagesPerSecond: 0 },
    { atMs: 150, pagesPerSecond: 0 },
    { atMs: 250, pagesPerSecond: 1000 },
  ]);
});

test('heartbeats of the first vCPU are in ms, and what else a VMM says is none', () => {
  const beat = { event: 'heartbeat', worker: 'vcpu0', vcpu: 0, at_ns: 2_500_000, work: 7 };
  assert.deepEqual(heartbeatsOf([{ event: 'started' }, beat, { ...beat, vcpu: 1 }]), [{ atMs: 2.5, pages: 7 }]);
});
