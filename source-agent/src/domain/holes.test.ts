import assert from 'node:assert/strict';
import { test } from 'node:test';
import { array, assert as check, integer, property } from 'fast-check';
import { longestHoles } from './holes.ts';

test('of any holes at most so many are kept, in their order, and none that is less than half as long as one left out', () => {
  const region = array(integer({ min: 1, max: 40 }), { maxLength: 30 });
  check(
    property(array(region, { maxLength: 4 }), integer({ min: 1, max: 50 }), (regions, most) => {
      const found = regions.map((lengths) =>
        Float64Array.from(lengths.flatMap((length, i) => [i * 100 * 4096, length * 4096])),
      );
      const kept = longestHoles(found, most);
      const count = regions.reduce((sum, lengths) => sum + lengths.length, 0);
      assert.equal(
        kept.reduce((sum, pairs) => sum + pairs.length / 2, 0),
        Math.min(most, count),
      );
      let shortest = Infinity;
      let longestLeftOut = 0;
      for (const [r, pairs] of found.entries()) {
        let next = 0;
        const told = kept[r] ?? assert.fail();
        for (let i = 0; i < pairs.length; i += 2) {
          if (told[next] === pairs[i]) {
            assert.equal(told[next + 1], pairs[i + 1]);
            shortest = Math.min(shortest, pairs[i + 1] ?? 0);
            next += 2;
          } else longestLeftOut = Math.max(longestLeftOut, pairs[i + 1] ?? 0);
        }
        assert.equal(next, told.length);
      }
      assert.ok(longestLeftOut < 2 * shortest);
    }),
  );
});
