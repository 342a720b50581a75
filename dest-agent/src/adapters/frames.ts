/** From a page frame to bytes that may be installed, or the reason why not. */
import { checksumSeed, frameFaultOf, zerosOf, type FrameEncoding, type RunPlace } from '@pagewake/core';
import { checksum, lz4Decompress } from '@pagewake/native';
import type { PageFrame } from '@pagewake/proto';
import { Encoding, ErrorReason } from '@pagewake/proto/hot';

export type DecodedFrame =
  | { readonly kind: 'zero'; readonly pageCount: number }
  | { readonly kind: 'data'; readonly pageCount: number; readonly bytes: Uint8Array }
  | { readonly kind: 'bad'; readonly reason: ErrorReason; readonly message: string };

/** `bytes` begins with the pages that are in no run of `zeros`: pairs of first page within the frame and count. */
export interface SparseFrame {
  readonly kind: 'sparse';
  readonly pageCount: number;
  readonly bytes: Uint8Array;
  readonly zeros: Uint32Array;
}

const NOTHING = new Uint8Array(0);

export function encodingOf(encoding: Encoding): FrameEncoding | undefined {
  switch (encoding) {
    case Encoding.ZERO:
      return 'zero';
    case Encoding.RAW:
      return 'raw';
    case Encoding.LZ4:
      return 'lz4';
    case Encoding.SPARSE:
      return 'sparse';
    case Encoding.UNSPECIFIED:
      return undefined;
    default:
      return undefined;
  }
}

/** Where compressed frames are unpacked, again and again: a fresh buffer for each is memory that the engine has to collect. */
export class Unpacked {
  #buffer = new Uint8Array(0);

  /** `length` bytes, which the next call gives again. */
  room(length: number): Uint8Array {
    if (this.#buffer.length < length) this.#buffer = new Uint8Array(length);
    return this.#buffer.subarray(0, length);
  }
}

function decompress(payload: Uint8Array, into: Uint8Array): Uint8Array | undefined {
  // The size comes from the peer: believed only where it is the one that the page count says.
  return lz4Decompress(payload, into) ? into : undefined;
}

/**
 * Checks a frame against what was asked and against its checksum, and decodes it. The bytes of a raw frame alias the received
 * message, those of a compressed one are in `unpacked`: valid until the next frame.
 */
export function decodeFrame(
  frame: PageFrame | undefined,
  expected: RunPlace,
  pageSizeBytes: number,
  unpacked: Unpacked,
): DecodedFrame {
  const decoded = decodeAnyFrame(frame, expected, pageSizeBytes, unpacked);
  if (decoded.kind !== 'sparse') return decoded;
  return { kind: 'bad', reason: ErrorReason.MALFORMED_FRAME, message: 'a sparse frame, which was not asked for' };
}

/** The same for who said that sparse frames are understood. */
export function decodeAnyFrame(
  frame: PageFrame | undefined,
  expected: RunPlace,
  pageSizeBytes: number,
  unpacked: Unpacked,
): DecodedFrame | SparseFrame {
  if (!frame) return { kind: 'bad', reason: ErrorReason.MALFORMED_FRAME, message: 'a message without a frame' };
  const encoding = encodingOf(frame.encoding);
  const wrong = frameFaultOf(
    {
      region: frame.region,
      firstPage: frame.firstPage,
      pageCount: frame.pageCount,
      encoding,
      payloadBytes: frame.payload.length,
    },
    expected,
    pageSizeBytes,
  );
  if (wrong !== undefined) return { kind: 'bad', reason: ErrorReason.MALFORMED_FRAME, message: wrong };
  const bytes =
    encoding === 'zero'
      ? NOTHING
      : encoding === 'raw' || encoding === 'sparse'
        ? frame.payload
        : decompress(frame.payload, unpacked.room(frame.pageCount * pageSizeBytes));
  if (!bytes) return { kind: 'bad', reason: ErrorReason.MALFORMED_FRAME, message: 'its LZ4 block does not decode' };
  const [high, low] = checksumSeed(frame.region, frame.firstPage);
  const found = checksum(bytes, 0, bytes.length, high, low);
  if (found !== frame.checksum) {
    const message =
      `page ${frame.firstPage} of region ${frame.region}: checksum ${hex(frame.checksum)} was sent, ` +
      `the content has ${hex(found)}`;
    return { kind: 'bad', reason: ErrorReason.CHECKSUM_MISMATCH, message };
  }
  if (encoding === 'sparse') {
    const zeros = zerosOf(bytes, frame.pageCount, pageSizeBytes);
    if (zeros) return { kind: 'sparse', pageCount: frame.pageCount, bytes, zeros };
    return { kind: 'bad', reason: ErrorReason.MALFORMED_FRAME, message: 'its table of zeros is none' };
  }
  return encoding === 'zero'
    ? { kind: 'zero', pageCount: frame.pageCount }
    : { kind: 'data', pageCount: frame.pageCount, bytes };
}

const hex = (value: number): string => `0x${value.toString(16).padStart(8, '0')}`;
