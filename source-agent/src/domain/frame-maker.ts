/** From a run of pages to what goes into a frame: read, zero check, compression, checksum, and how long each took. */
import { squeeze } from '@pagewake/core';
import { checkRun } from './geometry.ts';
import type { Readable } from './guest-image.ts';
import type { Stretch, ZeroTable } from './zero-table.ts';

export type FrameEncoding = 'zero' | 'raw' | 'lz4' | 'sparse';

export interface Frame {
  readonly region: number;
  readonly firstPage: number;
  readonly pageCount: number;
  readonly encoding: FrameEncoding;
  /** Empty for zeros, else a view of the buffer that was given. */
  readonly payload: Uint8Array;
  readonly checksum: number;
  /** When reading began, `performance.now()`. */
  readonly beganMs: number;
  readonly readMs: number;
  readonly encodeMs: number;
}

/** Arithmetic on page contents; the native core does it. */
export interface Codec {
  /** Low 32 bits of XXH3-64 of the first `length` bytes, seeded with region * 2^32 + firstPage. */
  checksum(bytes: Uint8Array, length: number, region: number, firstPage: number): number;
  /** Pages of the first `length` bytes that hold only zeros: pairs of first page and count, ascending and not touching. */
  zeroRuns(bytes: Uint8Array, length: number, pageSizeBytes: number): Uint32Array;
  /** Writes a 4-byte little-endian length, then one LZ4 block. @returns how much; 0 where it is more than `into` holds */
  compress(bytes: Uint8Array, into: Uint8Array): number;
}

/** Whether to try LZ4 on data; a function decides once it sees the data. */
export type Compress = boolean | ((raw: Buffer) => boolean);

const NOTHING = new Uint8Array(0);
const NO_CUTS = new Uint32Array(0);
/** LZ4 is kept where it saves at least this share; below that the link gains less than both CPUs lose. */
const WORTHWHILE_SAVING = 0.2;
/** How much of a range is compressed to learn whether the rest should be. */
export const SAMPLE_BYTES = 32 * 1024;
/** Zeros within data are cut out from here on: below it a frame, or a fault of the guest later on, costs more than the bytes do. */
const CUT_BYTES = 16 * 1024;

/** What a read found out about its pages. They stand still, so it holds for the frames that follow, and nothing is searched twice. */
interface Looked {
  readonly region: number;
  readonly firstPage: number;
  readonly endPage: number;
  readonly zeros: Uint32Array;
  readonly leastRunPages: number;
}

export class FrameMaker {
  readonly #image: Readable;
  readonly #zeros: ZeroTable;
  readonly #codec: Codec;
  #looked: Looked | undefined;
  /** What was compressed, before it takes the place of what it was made of. */
  #packed = Buffer.alloc(0);

  constructor(image: Readable, zeros: ZeroTable, codec: Codec) {
    this.#image = image;
    this.#zeros = zeros;
    this.#codec = codec;
  }

  /**
   * The frame for the run's beginning: as many of its pages as share one encoding and fit `into`. `into` must hold at
   * least one page. Throws OUT_OF_RANGE and MEMORY_UNREADABLE; what cannot be read is never told as zeros.
   *
   * @param sparse zeros within data need not end the frame, if it is not compressed
   */
  make(region: number, firstPage: number, maxPages: number, into: Buffer, compress: Compress, sparse = false): Frame {
    const { pageSizeBytes } = checkRun(this.#image.regions, region, firstPage, maxPages);
    const beganMs = performance.now();
    let stretch = this.#stretchAt(region, firstPage);
    if (stretch.zero)
      return this.#zero(region, firstPage, Math.min(maxPages, stretch.endPage - firstPage), beganMs, beganMs);

    const room = Math.floor(into.length / pageSizeBytes);
    let pageCount = Math.min(maxPages, stretch.endPage - firstPage, room);
    this.#image.readRun(region, firstPage, pageCount, into);
    const readMs = performance.now();
    if (!this.#knows(region, firstPage)) {
      this.#look(region, firstPage, pageCount, into, pageSizeBytes);
      const cuts = sparse ? this.#cuts(pageCount) : NO_CUTS;
      if (cuts.length > 0 && !decides(compress, firstData(into, cuts, pageCount, pageSizeBytes))) {
        const payload = into.subarray(0, squeeze(into, pageCount, pageSizeBytes, cuts));
        const checksum = this.#codec.checksum(payload, payload.length, region, firstPage);
        const encodeMs = performance.now() - readMs;
        const times = { beganMs, readMs: readMs - beganMs, encodeMs };
        return { region, firstPage, pageCount, encoding: 'sparse', payload, checksum, ...times };
      }
      stretch = this.#stretchAt(region, firstPage);
      pageCount = Math.min(pageCount, stretch.endPage - firstPage);
      if (stretch.zero) return this.#zero(region, firstPage, pageCount, beganMs, readMs);
    }
    const length = pageCount * pageSizeBytes;
    const checksum = this.#codec.checksum(into, length, region, firstPage);
    const raw = into.subarray(0, length);
    const packed = decides(compress, raw) ? this.#compress(raw, length - 1) : 0;
    // In its place: whoever sends it has room in front of that alone, and nothing has to live on until it is sent.
    if (packed > 0) this.#packed.copy(into, 0, 0, packed);
    return {
      region,
      firstPage,
      pageCount,
      encoding: packed > 0 ? 'lz4' : 'raw',
      payload: packed > 0 ? into.subarray(0, packed) : raw,
      checksum,
      beganMs,
      readMs: readMs - beganMs,
      encodeMs: performance.now() - readMs,
    };
  }

  /** Whether LZ4 pays for these pages, told by their first few. */
  compressible(raw: Buffer): boolean {
    const sample = raw.subarray(0, SAMPLE_BYTES);
    return this.#compress(sample, Math.floor(sample.length * (1 - WORTHWHILE_SAVING))) > 0;
  }

  /** @returns bytes in `#packed`; 0 where they would be more than `mostBytes` */
  #compress(raw: Buffer, mostBytes: number): number {
    if (this.#packed.length < mostBytes) this.#packed = Buffer.allocUnsafeSlow(mostBytes);
    return this.#codec.compress(raw, this.#packed.subarray(0, mostBytes));
  }

  /** What the page is, and how far that holds, as far as anybody knows. */
  #stretchAt(region: number, page: number): Stretch {
    const told = this.#zeros.at(region, page);
    const looked = this.#looked;
    if (told.zero || looked === undefined || !this.#knows(region, page)) return told;
    for (let i = 0; i < looked.zeros.length; i += 2) {
      const first = looked.firstPage + (looked.zeros[i] ?? 0);
      const count = looked.zeros[i + 1] ?? 0;
      if (count < looked.leastRunPages || first + count <= page) continue;
      return first <= page ? { zero: true, endPage: first + count } : { zero: false, endPage: first };
    }
    return { zero: false, endPage: looked.endPage };
  }

  #knows(region: number, page: number): boolean {
    const looked = this.#looked;
    return looked !== undefined && looked.region === region && looked.firstPage <= page && page < looked.endPage;
  }

  #look(region: number, firstPage: number, pageCount: number, bytes: Buffer, pageSizeBytes: number): void {
    const zeros = this.#codec.zeroRuns(bytes, pageCount * pageSizeBytes, pageSizeBytes);
    // Where all of it is zero nothing else is cut off.
    const leastRunPages = Math.min(pageCount, Math.ceil(CUT_BYTES / pageSizeBytes));
    this.#looked = { region, firstPage, endPage: firstPage + pageCount, zeros, leastRunPages };
  }

  /** Runs of zeros within what was looked at that are worth a cut; none where it is all zeros. */
  #cuts(pageCount: number): Uint32Array {
    const { zeros = NO_CUTS, leastRunPages = 1 } = this.#looked ?? {};
    if (zeros[1] === pageCount) return NO_CUTS;
    return zeros.filter((_, i) => (zeros[i | 1] ?? 0) >= leastRunPages);
  }

  #zero(region: number, firstPage: number, pageCount: number, beganMs: number, readMs: number): Frame {
    const checksum = this.#codec.checksum(NOTHING, 0, region, firstPage);
    const encodeMs = performance.now() - readMs;
    return {
      region,
      firstPage,
      pageCount,
      encoding: 'zero',
      payload: NOTHING,
      checksum,
      beganMs,
      readMs: readMs - beganMs,
      encodeMs,
    };
  }
}

function decides(compress: Compress, raw: Buffer): boolean {
  return typeof compress === 'function' ? compress(raw) : compress;
}

/** What is not cut out, up to the first cut behind it. */
function firstData(bytes: Buffer, cuts: Uint32Array, pageCount: number, pageSizeBytes: number): Buffer {
  const [first = 0, count = 0, second = pageCount] = cuts;
  return first > 0
    ? bytes.subarray(0, first * pageSizeBytes)
    : bytes.subarray(count * pageSizeBytes, second * pageSizeBytes);
}
