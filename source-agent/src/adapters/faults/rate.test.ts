import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RequestRate } from './rate.ts';

/** @returns whether the last one is taken for one of several */
function afterRequests(count: number, apartMs: number): boolean {
  const rate = new RequestRate();
  for (let i = 0; i < count; i++) rate.note(i * apartMs);
  return rate.isOfSeveral((count - 1) * apartMs);
}

test('requests of one thread, which waits for each answer, are not taken for those of several', () => {
  assert.equal(afterRequests(1000, 0.1), false);
});

test('requests that come closer than one thread can ask are those of several, as soon as there are eight', () => {
  assert.equal(afterRequests(7, 0.04), false);
  assert.equal(afterRequests(8, 0.04), true);
  assert.equal(afterRequests(8, 0), true);
});

test('what was the rate is forgotten once no request comes', () => {
  const rate = new RequestRate();
  for (let i = 0; i < 8; i++) rate.note(0);
  rate.note(10);
  assert.equal(rate.isOfSeveral(10), false);
});
