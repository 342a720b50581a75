import { checksum, lz4Compress, zeroRuns } from '@pagewake/native';
import type { Codec } from '../domain/frame-maker.ts';

export const nativeCodec: Codec = {
  checksum: (bytes, length, region, firstPage) => checksum(bytes, 0, length, region, firstPage),
  zeroRuns: (bytes, length, pageSizeBytes) => zeroRuns(bytes, 0, length, pageSizeBytes),
  compress: lz4Compress,
};
