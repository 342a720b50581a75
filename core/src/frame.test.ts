import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checksumSeed, frameFaultOf, type FrameShape } from './frame.ts';

const K4 = 4096;
const M2 = 2 * 1024 * 1024;
const asked = { region: 1, firstPage: 8, pageCount: 4 };
const raw: FrameShape = { region: 1, firstPage: 8, pageCount: 4, encoding: 'raw', payloadBytes: 4 * K4 };

const ROWS: readonly (readonly [law: string, frame: FrameShape, wrong: RegExp | undefined])[] = [
  ['the whole run, raw', raw, undefined],
  ['a part of the run from its start', { ...raw, pageCount: 1, payloadBytes: K4 }, undefined],
  ['zeros without payload', { ...raw, encoding: 'zero', payloadBytes: 0 }, undefined],
  ['LZ4 of five bytes', { ...raw, encoding: 'lz4', payloadBytes: 5 }, undefined],
  ['LZ4 that grew as much as LZ4 can', { ...raw, encoding: 'lz4', payloadBytes: 4 * K4 + 65 + 20 }, undefined],
  ['sparse with one page of data', { ...raw, encoding: 'sparse', payloadBytes: K4 + 12 }, undefined],
  ['another region', { ...raw, region: 0 }, /asked for page 8 of region 1, got page 8 of region 0/],
  ['another page', { ...raw, firstPage: 9 }, /got page 9 of region 1/],
  ['a page before', { ...raw, firstPage: 7 }, /got page 7/],
  ['no page at all', { ...raw, pageCount: 0, payloadBytes: 0 }, /at most 4 pages, got 0/],
  ['a page too many', { ...raw, pageCount: 5, payloadBytes: 5 * K4 }, /at most 4 pages, got 5/],
  ['no known encoding', { ...raw, encoding: undefined }, /encoding is not known/],
  ['raw, a byte short', { ...raw, payloadBytes: 4 * K4 - 1 }, /16383 bytes of payload for 4 pages of 4096/],
  ['raw, a byte long', { ...raw, payloadBytes: 4 * K4 + 1 }, /16385 bytes of payload/],
  ['raw without payload', { ...raw, payloadBytes: 0 }, /0 bytes of payload/],
  ['zeros with payload', { ...raw, encoding: 'zero', payloadBytes: 1 }, /a zero frame with 1 bytes of payload/],
  ['sparse without payload', { ...raw, encoding: 'sparse', payloadBytes: 0 }, /0 bytes of a sparse payload/],
  ['sparse without zeros', { ...raw, encoding: 'sparse', payloadBytes: 4 * K4 }, /16384 bytes of a sparse payload/],
  ['LZ4 of its size field alone', { ...raw, encoding: 'lz4', payloadBytes: 4 }, /4 bytes of LZ4 for 16384 decoded/],
  ['LZ4 without payload', { ...raw, encoding: 'lz4', payloadBytes: 0 }, /0 bytes of LZ4/],
  ['LZ4 longer than LZ4 can be', { ...raw, encoding: 'lz4', payloadBytes: 4 * K4 + 65 + 21 }, /16470 bytes of LZ4/],
];

for (const [law, frame, wrong] of ROWS)
  test(`${law}: ${wrong ? 'refused' : 'accepted'}`, () => {
    const found = frameFaultOf(frame, asked, K4);
    if (wrong) assert.match(found ?? 'accepted', wrong);
    else assert.equal(found, undefined);
  });

test('sizes are counted in pages of the region', () => {
  const huge: FrameShape = { region: 0, firstPage: 0, pageCount: 1, encoding: 'raw', payloadBytes: M2 };
  const run = { region: 0, firstPage: 0, pageCount: 1 };
  assert.equal(frameFaultOf(huge, run, M2), undefined);
  assert.match(frameFaultOf({ ...huge, payloadBytes: K4 }, run, M2) ?? '', /4096 bytes of payload for 1 pages/);
});

test('the checksum of a page depends on where it belongs', () => {
  assert.deepEqual(checksumSeed(3, 9), [3, 9]);
  assert.notDeepEqual(checksumSeed(3, 9), checksumSeed(9, 3));
});
