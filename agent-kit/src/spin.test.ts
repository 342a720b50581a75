import assert from 'node:assert/strict';
import { test } from 'node:test';
import { spinUsOf } from './spin.ts';

test('a lane stays awake by itself only where cores are many; what the operator says goes before that', () => {
  assert.deepEqual(
    [1, 2, 3, 4, 64].map((cores) => spinUsOf(undefined, cores)),
    [0, 0, 0, 200, 200],
  );
  assert.equal(spinUsOf(0, 64), 0);
  assert.equal(spinUsOf(500, 1), 500);
});
