import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RequestRate } from './rate.ts';

/** @returns whether the last message is taken for one of several threads */
function afterMessages(count: number, apartMs: number, pages: number): boolean {
  const rate = new RequestRate();
  for (let i = 0; i < count; i++) rate.note(pages, i * apartMs);
  return rate.isOfSeveral((count - 1) * apartMs);
}

test('requests of one thread are never taken for those of several, however fast it is', () => {
  assert.equal(afterMessages(1000, 0.1, 1), false);
  assert.equal(afterMessages(1000, 0.01, 1), false);
});

test('requests that come close, and some of them together, are those of several threads', () => {
  assert.equal(afterMessages(3, 0.08, 2), false);
  assert.equal(afterMessages(4, 0.08, 2), true);
  assert.equal(afterMessages(1, 0, 8), true);
});

test('pairs that come seldom are no reason to stay awake', () => {
  assert.equal(afterMessages(1000, 0.3, 2), false);
});

test('what was the rate is forgotten once no request comes', () => {
  const rate = new RequestRate();
  rate.note(8, 0);
  rate.note(1, 10);
  assert.equal(rate.isOfSeveral(10), false);
});
