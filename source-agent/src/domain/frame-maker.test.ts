import assert from 'node:assert/strict';
import { test } from 'node:test';
import { array, assert as check, boolean, integer, property } from 'fast-check';
import { zerosOf } from '@pagewake/core';
import { nativeCodec } from '../adapters/codec.ts';
import { FrameMaker, type Frame } from './frame-maker.ts';
import type { Readable } from './guest-image.ts';
import { ZeroTable } from './zero-table.ts';

const PAGE = 64;
/** 16 KiB: zeros within data are cut out from here on. */
const CUT_PAGES = 16384 / PAGE;

/** Pages of zeros, or of bytes that say which page it is. Counts what is read. */
class Pages implements Readable {
  readonly regions;
  readonly bytes: Buffer;
  pagesRead = 0;

  constructor(zero: readonly boolean[]) {
    this.regions = [{ pageSizeBytes: PAGE, pageCount: zero.length }];
    this.bytes = Buffer.concat(
      zero.map((is, page) => (is ? Buffer.alloc(PAGE) : Buffer.alloc(PAGE, 1 + (page % 255)))),
    );
  }
  readRun(_region: number, firstPage: number, pageCount: number, into: Uint8Array): void {
    this.pagesRead += pageCount;
    this.bytes.copy(into, 0, firstPage * PAGE, (firstPage + pageCount) * PAGE);
  }
}

/** What a sparse frame says. */
function spread({ payload, pageCount }: Frame): Buffer {
  const zeros = zerosOf(payload, pageCount, PAGE);
  assert(zeros, 'a sparse frame without a table');
  const content = Buffer.alloc(pageCount * PAGE);
  let from = 0;
  for (let page = 0, run = 0; page < pageCount; page++) {
    if (page === zeros[run]) page += zeros[run + 1] ?? 0;
    if (page === (zeros[run] ?? -1) + (zeros[run + 1] ?? 0)) run += 2;
    if (page < pageCount) content.set(payload.subarray(from, (from += PAGE)), page * PAGE);
  }
  return content;
}

function framesOf(image: Pages, roomPages: number, sparse = false): Frame[] {
  const maker = new FrameMaker(image, new ZeroTable(image.regions, []), nativeCodec);
  const into = Buffer.alloc(roomPages * PAGE);
  const frames: Frame[] = [];
  const pages = image.bytes.length / PAGE;
  for (let page = 0; page < pages;) {
    const frame = maker.make(0, page, pages - page, into, false, sparse);
    assert.equal(frame.firstPage, page);
    const content = image.bytes.subarray(page * PAGE, (page + frame.pageCount) * PAGE);
    if (frame.encoding === 'zero') assert(content.every((byte) => byte === 0));
    else if (frame.encoding === 'sparse') assert.deepEqual(spread(frame), content);
    else assert(content.equals(frame.payload));
    frames.push({ ...frame, payload: new Uint8Array(0) });
    page += frame.pageCount;
  }
  return frames;
}

test('for any mixture of zeros and data the frames are what the pages are, and no page is read more than twice', () => {
  const stretch = array(boolean(), { minLength: 1, maxLength: 3 });
  check(
    property(array(stretch, { minLength: 1, maxLength: 8 }), integer({ min: 1, max: 3 }), (mixture, rooms) => {
      // Stretches about as long as what is worth a cut.
      const zero = mixture.flatMap((is) =>
        is.flatMap((each, i) => Array.from({ length: i === 0 ? CUT_PAGES : CUT_PAGES / 2 }, () => each)),
      );
      const image = new Pages(zero);
      framesOf(image, rooms * 2 * CUT_PAGES);
      assert(image.pagesRead <= 2 * zero.length, `${String(image.pagesRead)} of ${String(zero.length)}`);
      const read = image.pagesRead;
      framesOf(image, rooms * 2 * CUT_PAGES, true);
      assert.equal(image.pagesRead - read, zero.length, 'who takes sparse frames has each page read once');
    }),
  );
});

test('long runs of zeros within data are cut out, short ones are not, and zeros alone are zeros however short', () => {
  const run = (length: number, is: boolean): boolean[] => Array.from({ length }, () => is);
  const shapes = (zero: readonly boolean[]) =>
    framesOf(new Pages(zero), 8 * CUT_PAGES).map((f) => [f.encoding, f.pageCount]);
  assert.deepEqual(shapes([...run(9, false), ...run(CUT_PAGES, true), ...run(3, false)]), [
    ['raw', 9],
    ['zero', CUT_PAGES],
    ['raw', 3],
  ]);
  assert.deepEqual(shapes([...run(9, false), ...run(CUT_PAGES - 1, true), ...run(3, false)]), [
    ['raw', CUT_PAGES + 11],
  ]);
  assert.deepEqual(shapes(run(1, true)), [['zero', 1]]);
  const mixed = new Pages([...run(9, false), ...run(CUT_PAGES, true), ...run(3, false), ...run(3, true)]);
  assert.deepEqual(
    framesOf(mixed, 8 * CUT_PAGES, true).map((f) => [f.encoding, f.pageCount]),
    [['sparse', CUT_PAGES + 15]],
  );
});
