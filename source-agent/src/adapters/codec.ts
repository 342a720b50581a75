import { checksum, zeroRuns } from '@pagewake/native';
import { compressSync } from 'lz4-napi';
import type { Codec } from '../domain/frame-maker.ts';

export const nativeCodec: Codec = {
  checksum: (bytes, length, region, firstPage) => checksum(bytes, 0, length, region, firstPage),
  zeroRuns: (bytes, length, pageSizeBytes) => zeroRuns(bytes, 0, length, pageSizeBytes),
  compress: (bytes) => compressSync(bytes),
};
