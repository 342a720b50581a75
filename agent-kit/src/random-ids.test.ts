import assert from 'node:assert/strict';
import { test } from 'node:test';
import { newSpanId, newTraceId } from './random-ids.ts';

test('ids have their length, and none comes twice, however many are drawn', () => {
  const ids = new Set<string>();
  for (let i = 0; i < 5000; i++) {
    const span = newSpanId();
    const trace = newTraceId();
    assert.match(span, /^[0-9a-f]{16}$/);
    assert.match(trace, /^[0-9a-f]{32}$/);
    ids.add(span).add(trace);
  }
  assert.equal(ids.size, 10_000);
});
