import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ErrorReason, PagewakeError } from '@pagewake/agent-kit';
import { checkOverlap, checkRegions, checkRun, checkSameGeometry, type PlacedRegion } from './geometry.ts';
import type { Region } from './guest-image.ts';

const K4 = 4096;
const M2 = 2 * 1024 * 1024;
const placed = (startBytes: number, pageCount: number, pageSizeBytes = K4): PlacedRegion => ({
  startBytes,
  pageCount,
  pageSizeBytes,
});

function checkGeometry(regions: readonly PlacedRegion[], startName: string): void {
  checkRegions(regions, startName);
  checkOverlap(regions, startName);
}

function fails(what: () => unknown, reason: ErrorReason, message: RegExp): void {
  assert.throws(what, (error: unknown) => {
    assert(error instanceof PagewakeError);
    assert.equal(error.reasonName, ErrorReason[reason]);
    assert.match(error.message, message);
    return true;
  });
}

const REFUSED: readonly [string, readonly PlacedRegion[], RegExp][] = [
  ['none', [], /no regions/],
  ['too many', Array.from({ length: 1025 }, (_, i) => placed(i * K4, 1)), /1025 regions: at most 1024/],
  ['a page size of its own', [placed(0, 1, 8192)], /region 0: page_size_bytes 8192; must be 4096 or 2097152/],
  ['page size 0', [placed(0, 1, 0)], /region 0: page_size_bytes 0/],
  ['no pages', [placed(0, 1), placed(K4, 0)], /region 1: page_count 0/],
  ['unaligned', [placed(100, 1)], /region 0: offset 100 is not a multiple of its page size 4096/],
  ['unaligned for its own page size', [placed(K4, 1, M2)], /offset 4096 is not a multiple of its page size 2097152/],
  ['beyond 2^53', [placed(2 ** 53 - K4, 2)], /ends beyond 2\^53/],
  ['a start that lost bits', [placed(2 ** 60, 1)], /ends beyond 2\^53/],
  ['overlap', [placed(0, 2), placed(K4, 1)], /region 1 begins at offset 4096, inside region 0 \(0 to 8192\)/],
  ['overlap out of order', [placed(K4, 1), placed(0, 2)], /region 0 begins at offset 4096, inside region 1/],
  ['the same twice', [placed(0, 1), placed(0, 1)], /inside region/],
];

for (const [name, regions, message] of REFUSED) {
  test(`geometry is refused with the region and its numbers: ${name}`, () => {
    fails(() => checkGeometry(regions, 'offset'), ErrorReason.INVALID_ARGUMENT, message);
  });
}

test('regions may touch, leave gaps, come in any order and differ in page size', () => {
  checkGeometry([placed(0, 512), placed(M2, 3, M2), placed(100 * M2, 1), placed(10 * M2, 1, M2)], 'offset');
});

test('regions overlap only within one memory', () => {
  const regions = [placed(0, 2), placed(0, 2), placed(K4, 1)];
  checkOverlap(regions.slice(0, 2), 'offset', (index) => `memory ${String(index)}`);
  fails(
    () => checkOverlap(regions, 'offset', (index) => `memory ${String(index % 2)}`),
    ErrorReason.INVALID_ARGUMENT,
    /region 2 begins at offset 4096, inside region 0/,
  );
});

const SOURCE: readonly Region[] = [
  { pageSizeBytes: K4, pageCount: 10 },
  { pageSizeBytes: M2, pageCount: 2 },
];

test('a destination with other regions is told which, with both numbers', () => {
  checkSameGeometry(SOURCE, SOURCE);
  const mismatch = (regions: readonly Region[], message: RegExp): void =>
    fails(() => checkSameGeometry(SOURCE, regions), ErrorReason.GEOMETRY_MISMATCH, message);
  mismatch([{ pageSizeBytes: K4, pageCount: 10 }], /source has 2 regions, the destination 1/);
  mismatch([{ pageSizeBytes: K4, pageCount: 11 }, SOURCE[1] ?? placed(0, 1)], /region 0: .*10 pages of 4096.*11 pages/);
  mismatch([SOURCE[0] ?? placed(0, 1), { pageSizeBytes: K4, pageCount: 2 }], /region 1: .*2097152 bytes.*4096 bytes/);
});

test('a run is in range exactly if it is not empty and ends with its region', () => {
  for (const [region, first, count] of [
    [0, 0, 1],
    [0, 9, 1],
    [0, 0, 10],
    [1, 1, 1],
  ] as const) {
    assert.equal(checkRun(SOURCE, region, first, count), SOURCE[region]);
  }
  for (const [region, first, count] of [
    [0, 10, 1],
    [0, 9, 2],
    [0, 0, 0],
    [0, 0xffff_ffff, 0xffff_ffff],
    [2, 0, 1],
    [0xffff_ffff, 0, 1],
  ] as const) {
    fails(() => checkRun(SOURCE, region, first, count), ErrorReason.OUT_OF_RANGE, /region/);
  }
});
