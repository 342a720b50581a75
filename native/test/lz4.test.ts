import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { lz4Compress, lz4Decompress } from '../ts/index.ts';

/** From bytes that shrink to bytes that do not. */
const content = fc.oneof(
  fc.uint8Array({ minLength: 1, maxLength: 5000 }),
  fc.tuple(fc.uint8Array({ minLength: 1, maxLength: 40 }), fc.integer({ min: 1, max: 300 })).map(([word, times]) => {
    return Uint8Array.from({ length: word.length * times }, (_, i) => word[i % word.length] ?? 0);
  }),
);
const ROOM = 20_000;

const packed = (bytes: Uint8Array): Uint8Array => {
  const into = new Uint8Array(ROOM);
  return into.subarray(0, lz4Compress(bytes, into));
};

test('what was compressed comes back, into exactly as much room as it had', () => {
  fc.assert(
    fc.property(content, (bytes) => {
      const back = new Uint8Array(bytes.length);
      assert(lz4Decompress(packed(bytes), back));
      assert.deepEqual(back, bytes);
      assert(!lz4Decompress(packed(bytes), new Uint8Array(bytes.length + 1)));
      assert(!lz4Decompress(packed(bytes), new Uint8Array(bytes.length - 1)));
    }),
  );
});

test('where there is too little room nothing is said to be written, and nothing is written behind it', () => {
  fc.assert(
    fc.property(content, fc.double({ min: 0, max: 1, noNaN: true }), (bytes, share) => {
      const needed = packed(bytes).length;
      const room = Math.floor(needed * share);
      const into = new Uint8Array(room + 16).fill(0xee);
      const written = lz4Compress(bytes, into.subarray(0, room));
      assert(written === 0 || written === needed);
      assert(into.subarray(room).every((byte) => byte === 0xee));
    }),
  );
});

test('what is no block of that content is refused, and never written beyond the room', () => {
  fc.assert(
    fc.property(content, fc.uint8Array({ maxLength: 60 }), fc.nat(), (bytes, noise, at) => {
      const garbled = Uint8Array.from(packed(bytes));
      garbled.set(noise.subarray(0, Math.max(0, garbled.length - (at % garbled.length))), at % garbled.length);
      const room = new Uint8Array(bytes.length + 16).fill(0xee);
      lz4Decompress(garbled, room.subarray(0, bytes.length));
      lz4Decompress(noise, room.subarray(0, bytes.length));
      assert(room.subarray(bytes.length).every((byte) => byte === 0xee));
      assert(!lz4Decompress(noise.subarray(0, 4), room.subarray(0, bytes.length)));
    }),
  );
});

test('what is no buffer is a TypeError that names it', () => {
  assert.throws(() => lz4Compress([1] as unknown as Uint8Array, new Uint8Array(8)), /bytes/);
  assert.throws(() => lz4Decompress(new Uint8Array(8), [1] as unknown as Uint8Array), /into/);
});
