import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readFileSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { once } from 'node:events';
import * as fc from 'fast-check';
import { checksum, duplicateDescriptor, monotonicMs, zeroRuns } from '../ts/index.ts';
import { codeOf, HANG_MS } from './support.ts';

/** The buffer of xxHash's own self test (its sanity buffer): bytes from a multiplicative generator. */
function sanityBuffer(length: number): Buffer {
  const bytes = Buffer.alloc(length);
  let generator = 2654435761n;
  for (let i = 0; i < length; i++) {
    bytes[i] = Number(generator >> 56n);
    generator = (generator * 11400714785074694797n) & 0xffffffffffffffffn;
  }
  return bytes;
}

/** XXH3-64 of the first `length` bytes of that buffer, from xxHash's published self test. */
const VECTORS = [
  { length: 0, seed: 0n, hash: 0x2d06800538d394c2n },
  { length: 0, seed: 0x9e3779b185ebca8dn, hash: 0xa8a6b918b2f0364an },
  { length: 1, seed: 0n, hash: 0xc44bdff4074eecdbn },
  { length: 1, seed: 0x9e3779b185ebca8dn, hash: 0x032be332dd766ef8n },
  { length: 6, seed: 0n, hash: 0x27b56a84cd2d7325n },
  { length: 6, seed: 0x9e3779b185ebca8dn, hash: 0x84589c116ab59ab9n },
  { length: 12, seed: 0n, hash: 0xa713daf0dfbb77e7n },
  { length: 12, seed: 0x9e3779b185ebca8dn, hash: 0xe7303e1b2336de0en },
  { length: 24, seed: 0n, hash: 0xa3fe70bf9d3510ebn },
  { length: 24, seed: 0x9e3779b185ebca8dn, hash: 0x850e80fc35bdd690n },
  { length: 48, seed: 0n, hash: 0x397da259ecba1f11n },
  { length: 48, seed: 0x9e3779b185ebca8dn, hash: 0xadc2cbaa44acc616n },
  { length: 2048, seed: 0n, hash: 0xdd59e2c3a5f038e0n },
  { length: 2048, seed: 0x9e3779b185ebca8dn, hash: 0x66f81670669ababcn },
  { length: 2367, seed: 0n, hash: 0xcb37aeb9e5d361edn },
  { length: 2367, seed: 0x9e3779b185ebca8dn, hash: 0xd2db3415b942b42an },
];

for (const { length, seed, hash } of VECTORS) {
  test(`the checksum of ${length} bytes with seed ${seed.toString(16)} is the published one`, () => {
    const padded = Buffer.concat([Buffer.of(1, 2, 3), sanityBuffer(length), Buffer.of(4)]);
    const found = checksum(padded, 3, length, Number(seed >> 32n), Number(seed & 0xffffffffn));
    assert.equal(found, Number(hash & 0xffffffffn));
  });
}

test('the checksum depends on the seed, both halves of it, and on every byte', () => {
  const bytes = sanityBuffer(4096);
  const first = checksum(bytes, 0, 4096, 1, 2);
  assert.notEqual(checksum(bytes, 0, 4096, 2, 1), first);
  assert.notEqual(checksum(bytes, 0, 4096, 1, 3), first);
  bytes[4095] = (bytes[4095] ?? 0) ^ 1;
  assert.notEqual(checksum(bytes, 0, 4096, 1, 2), first);
  assert.throws(() => checksum(bytes, 1, 4096, 0, 0), RangeError);
  assert.throws(() => checksum(bytes, 0, 4096, 0, 2 ** 32), RangeError);
});

function naive(bytes: Uint8Array, offset: number, length: number, pageSize: number): number[] {
  const runs: number[] = [];
  for (let page = 0; page < length / pageSize; page++) {
    const start = offset + page * pageSize;
    if (!bytes.subarray(start, start + pageSize).every((byte) => byte === 0)) continue;
    const last = runs.length - 1;
    if (runs.length > 0 && (runs[last - 1] ?? 0) + (runs[last] ?? 0) === page) runs[last] = (runs[last] ?? 0) + 1;
    else runs.push(page, 1);
  }
  return runs;
}

test('zero pages are found at every alignment and of every size', () => {
  const size = fc.oneof(fc.integer({ min: 1, max: 700 }), fc.constantFrom(255, 256, 257, 511, 512, 513, 4096));
  fc.assert(
    fc.property(
      size,
      fc.integer({ min: 0, max: 64 }),
      fc.array(fc.nat(8000), { maxLength: 6 }),
      (pageSize, offset, dirty) => {
        const pages = Math.max(1, Math.floor(8000 / pageSize));
        const bytes = new Uint8Array(offset + pages * pageSize + 3);
        for (const at of dirty) bytes[at % bytes.length] = 0x80;
        const found = zeroRuns(bytes, offset, pages * pageSize, pageSize);
        assert.deepEqual(Array.from(found), naive(bytes, offset, pages * pageSize, pageSize));
      },
    ),
    { numRuns: 300 },
  );
});

test('a single byte anywhere in a page makes it data', () => {
  const bytes = new Uint8Array(33 + 4096);
  for (let at = 0; at < 4096; at++) {
    bytes[33 + at] = 1;
    assert.equal(zeroRuns(bytes, 33, 4096, 4096).length, 0, `byte ${at}`);
    bytes[33 + at] = 0;
  }
  assert.deepEqual(Array.from(zeroRuns(bytes, 33, 4096, 4096)), [0, 1]);
});

test('shared buffers are read in place', () => {
  const bytes = new Uint8Array(new SharedArrayBuffer(8192));
  bytes[0] = 1;
  assert.deepEqual(Array.from(zeroRuns(bytes, 0, 8192, 4096)), [1, 1]);
});

test('a length that is not whole pages is refused', () => {
  assert.throws(() => zeroRuns(new Uint8Array(100), 0, 100, 64), {
    name: 'RangeError',
    message: /whole number of pages/,
  });
  assert.throws(() => zeroRuns(new Uint8Array(100), 0, 100, 0), RangeError);
});

test('the clock is the monotonic one of the machine, and never goes back', () => {
  const first = monotonicMs();
  const uptimeMs = Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0]) * 1000;
  // Suspended time counts in the one and not in the other.
  assert.ok(first <= uptimeMs + 1000);
  assert.ok(monotonicMs() >= first);
});

test('niceness is of the calling thread alone', { timeout: HANG_MS }, async () => {
  const source = `
    const { parentPort } = require('node:worker_threads');
    const { readFileSync } = require('node:fs');
    import(${JSON.stringify(new URL('../ts/index.ts', import.meta.url).href)}).then(({ setThreadNice }) => {
      setThreadNice(7);
      const nice = (path) => Number(readFileSync(path, 'utf8').replace(/^.*\\) /, '').split(' ')[16]);
      parentPort.postMessage([nice('/proc/thread-self/stat'), nice('/proc/self/stat')]);
    });`;
  const worker = new Worker(source, { eval: true });
  const [[own, main]] = (await once(worker, 'message')) as [[number, number]];
  assert.equal(own, 7);
  assert.notEqual(main, 7);
});

test('a descriptor is copied, or the error says which', () => {
  const fd = duplicateDescriptor(0);
  assert.notEqual(fd, 0);
  assert.equal(
    codeOf(() => duplicateDescriptor(99_999)),
    'EBADF',
  );
});
