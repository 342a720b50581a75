import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { squeeze, zerosOf } from './sparse.ts';

const PAGE = 16;

function runsOf(zero: readonly boolean[]): Uint32Array {
  const firsts = [...zero.keys()].filter((page) => zero[page] === true && zero[page - 1] !== true);
  return Uint32Array.from(firsts.flatMap((first) => [first, [...zero, false].indexOf(false, first) - first]));
}

const mixtures = fc
  .array(fc.boolean(), { minLength: 2, maxLength: 40 })
  .filter((zero) => zero.includes(true) && zero.includes(false));

test('whatever pages are zero, the payload has the others in order and says where the zeros are', () => {
  fc.assert(
    fc.property(mixtures, fc.nat(7), (zero, offset) => {
      const bytes = new Uint8Array(offset + zero.length * PAGE).subarray(offset);
      for (const [page, is] of zero.entries()) if (!is) bytes.fill(page + 1, page * PAGE, (page + 1) * PAGE);
      const runs = runsOf(zero);
      const payload = bytes.slice(0, squeeze(bytes, zero.length, PAGE, runs));
      assert.deepEqual(zerosOf(payload, zero.length, PAGE), runs);
      const data = [...zero.keys()].filter((page) => zero[page] === false);
      for (const [place, page] of data.entries())
        assert(payload.subarray(place * PAGE, (place + 1) * PAGE).every((byte) => byte === page + 1));
    }),
  );
});

test('no payload is read as runs outside of its frame, touching, out of order, or as other data than it has', () => {
  const little = (...numbers: number[]): Uint8Array => new Uint8Array(Uint32Array.from(numbers).buffer);
  const payload = (pages: number, ...table: number[]): Uint8Array =>
    Uint8Array.from([...new Uint8Array(pages * PAGE), ...little(...table)]);
  assert.deepEqual(zerosOf(payload(2, 1, 2, 1), 4, PAGE), Uint32Array.of(1, 2));
  for (const [law, wrong] of [
    ['no table', payload(4)],
    ['no run', payload(4, 0)],
    ['more runs than bytes', payload(0, 1, 2, 9)],
    ['more runs than pages', payload(0, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 5)],
    ['a run beyond the end', payload(2, 3, 2, 1)],
    ['a run far beyond it', payload(2, 0xffff_ffff, 0xffff_ffff, 1)],
    ['an empty run', payload(4, 1, 0, 1)],
    ['runs that touch', payload(2, 0, 1, 1, 1, 2)],
    ['runs that overlap', payload(1, 0, 2, 1, 1, 2)],
    ['runs out of order', payload(2, 2, 1, 0, 1, 2)],
    ['a page too few', payload(1, 1, 2, 1)],
    ['a page too many', payload(3, 1, 2, 1)],
    ['half a page', payload(2, 1, 2, 1).subarray(1)],
    ['nothing', new Uint8Array(0)],
  ] as const)
    assert.equal(zerosOf(wrong, 4, PAGE), undefined, law);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 80 }), (noise) => {
      const zeros = zerosOf(noise, 4, PAGE);
      assert(zeros === undefined || zeros.length <= 4);
    }),
  );
});
