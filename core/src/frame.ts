/** What a page frame must be before one byte of it is believed. Pure checks; decoding and checksums are the adapters'. */

export type FrameEncoding = 'zero' | 'raw' | 'lz4' | 'sparse';

export interface FrameShape {
  readonly region: number;
  readonly firstPage: number;
  readonly pageCount: number;
  readonly encoding: FrameEncoding | undefined;
  readonly payloadBytes: number;
}

export interface RunPlace {
  readonly region: number;
  readonly firstPage: number;
  readonly pageCount: number;
}

/** Says what is wrong with a frame that answers a request for one page, or undefined. */
export function frameFaultOf(frame: FrameShape, expected: RunPlace, pageSizeBytes: number): string | undefined {
  if (frame.region !== expected.region || frame.firstPage !== expected.firstPage)
    return `asked for page ${expected.firstPage} of region ${expected.region}, got page ${frame.firstPage} of region ${frame.region}`;
  if (frame.pageCount < 1 || frame.pageCount > expected.pageCount)
    return `asked for at most ${expected.pageCount} pages, got ${frame.pageCount}`;
  const decodedBytes = frame.pageCount * pageSizeBytes;
  switch (frame.encoding) {
    case undefined:
      return 'its encoding is not known';
    case 'zero':
      return frame.payloadBytes === 0 ? undefined : `a zero frame with ${frame.payloadBytes} bytes of payload`;
    case 'raw':
      return frame.payloadBytes === decodedBytes
        ? undefined
        : `${frame.payloadBytes} bytes of payload for ${frame.pageCount} pages of ${pageSizeBytes}`;
    case 'sparse':
      return frame.payloadBytes > 0 && frame.payloadBytes < decodedBytes
        ? undefined
        : `${frame.payloadBytes} bytes of a sparse payload for ${decodedBytes} decoded`;
    case 'lz4':
      // An LZ4 block that does not compress grows by a 255th and 16 bytes; four more are the size.
      return frame.payloadBytes > 4 && frame.payloadBytes <= decodedBytes + Math.ceil(decodedBytes / 255) + 20
        ? undefined
        : `${frame.payloadBytes} bytes of LZ4 for ${decodedBytes} decoded`;
  }
}

/** The checksum's seed: a right page in the wrong place must be a wrong page. */
export const checksumSeed = (region: number, firstPage: number): readonly [high: number, low: number] => [
  region,
  firstPage,
];
