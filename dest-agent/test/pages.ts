/** What the guest's memory holds, and frames of it: honest ones, and every way to lie. */
import { crc32 } from 'node:zlib';
import { create } from '@bufbuild/protobuf';
import { squeeze } from '@pagewake/core';
import { checksum } from '@pagewake/native';
import { Encoding, PageFrameSchema, type PageFrame } from '@pagewake/proto';
import { compressSync } from 'lz4-napi';
import type { Touch } from './toucher.ts';

export const PAGE_BYTES = 4096;

/** Different for every page, and compressible. */
export function content(page: number, region = 0): Buffer {
  return Buffer.alloc(PAGE_BYTES, `page ${String(page)} of region ${String(region)} has content of its own. `);
}

export const zeros = Buffer.alloc(PAGE_BYTES);
const NOTHING = Buffer.alloc(0);

export const seen = (bytes: Uint8Array): Touch => ({ kind: 'content', crc: crc32(bytes) });
export const SIGBUS: Touch = { kind: 'sigbus' };

export interface Lie {
  readonly region?: number;
  readonly firstPage?: number;
  readonly pageCount?: number;
  readonly encoding?: number;
  readonly payload?: Uint8Array;
  readonly checksum?: number;
}

const lz4 = (bytes: Buffer): Buffer => compressSync(bytes);

/** A frame of a run, right but for the lie. */
export function frameOf(firstPage: number, pageCount: number, encoding = Encoding.RAW, lie: Lie = {}): PageFrame {
  const region = lie.region ?? 0;
  const bytes =
    encoding === Encoding.ZERO
      ? NOTHING
      : Buffer.concat(Array.from({ length: pageCount }, (_, i) => content(firstPage + i, region)));
  const honest = create(PageFrameSchema, {
    region,
    firstPage,
    pageCount,
    encoding,
    payload: encoding === Encoding.LZ4 ? lz4(bytes) : bytes,
    checksum: checksum(bytes, 0, bytes.length, region, firstPage),
  });
  return Object.assign(honest, lie);
}

/** One in which these pages are zero: pairs of first page within the frame and count. */
export function sparseFrameOf(
  firstPage: number,
  pageCount: number,
  zeroRuns: readonly number[],
  lie: Lie = {},
): PageFrame {
  const bytes = Buffer.concat(Array.from({ length: pageCount }, (_, i) => content(firstPage + i)));
  const payload = bytes.subarray(0, squeeze(bytes, pageCount, PAGE_BYTES, Uint32Array.from(zeroRuns)));
  const sum = checksum(payload, 0, payload.length, 0, firstPage);
  return frameOf(firstPage, pageCount, Encoding.SPARSE, { payload, checksum: sum, ...lie });
}

const rightLz4 = (page: number): Buffer => lz4(content(page));

function lz4Claiming(page: number, sizeBytes: number): Buffer {
  const payload = Buffer.from(rightLz4(page));
  payload.writeUInt32LE(sizeBytes, 0);
  return payload;
}

/** proto3 enums are open: a number that no version of pagewake knows arrives as it was sent. */
const UNKNOWN_ENCODING = 9;

/** Frames that must never be installed as `page`, by what is wrong with them. */
export const LIES: readonly (readonly [law: string, frame: (page: number) => PageFrame | undefined])[] = [
  ['a message without a frame', () => undefined],
  ['the frame of another page', (page) => frameOf(page + 1, 1)],
  ['the page of another region', (page) => frameOf(page, 1, Encoding.RAW, { region: 1 })],
  ['more pages than were asked for', (page) => frameOf(page, 70)],
  ['no pages', (page) => frameOf(page, 1, Encoding.RAW, { pageCount: 0, payload: NOTHING })],
  ['an encoding that is not known', (page) => frameOf(page, 1, Encoding.RAW, { encoding: UNKNOWN_ENCODING })],
  ['no encoding', (page) => frameOf(page, 1, Encoding.RAW, { encoding: Encoding.UNSPECIFIED })],
  ['half a page', (page) => frameOf(page, 1, Encoding.RAW, { payload: content(page).subarray(0, 2048) })],
  ['zeros with a payload', (page) => frameOf(page, 1, Encoding.ZERO, { payload: content(page) })],
  ['LZ4 cut short', (page) => frameOf(page, 1, Encoding.LZ4, { payload: rightLz4(page).subarray(0, -5) })],
  ['LZ4 of a size alone', (page) => frameOf(page, 1, Encoding.LZ4, { payload: rightLz4(page).subarray(0, 4) })],
  ['LZ4 that claims to be larger', (page) => frameOf(page, 1, Encoding.LZ4, { payload: lz4Claiming(page, 8192) })],
  ['LZ4 that claims 4 GiB', (page) => frameOf(page, 1, Encoding.LZ4, { payload: lz4Claiming(page, 0xffff_ffff) })],
  ['LZ4 that claims to be smaller', (page) => frameOf(page, 1, Encoding.LZ4, { payload: lz4Claiming(page, 100) })],
  [
    'LZ4 of noise',
    (page) =>
      frameOf(page, 1, Encoding.LZ4, {
        payload: Buffer.concat([lz4Claiming(page, PAGE_BYTES).subarray(0, 4), Buffer.alloc(64, 0xff)]),
      }),
  ],
];

/** A right page with a wrong checksum; a wrong page with the right one's. */
export const CHECKSUM_LIES: readonly (readonly [law: string, frame: (page: number) => PageFrame])[] = [
  ['a checksum of something else', (page) => frameOf(page, 1, Encoding.RAW, { checksum: 1 })],
  [
    'content that was damaged on the way',
    (page) => frameOf(page, 1, Encoding.RAW, { payload: Buffer.alloc(PAGE_BYTES, 1) }),
  ],
  ['the content of another page', (page) => ({ ...frameOf(page + 1, 1), firstPage: page })],
  [
    'zeros that are none, with the checksum of data',
    (page) => frameOf(page, 1, Encoding.ZERO, { checksum: frameOf(page, 1).checksum }),
  ],
  ['LZ4 of another page', (page) => frameOf(page, 1, Encoding.LZ4, { payload: rightLz4(page + 1).subarray() })],
];
