import { checksum, zeroRuns } from '@pagewake/native';
import { compressSync } from 'lz4-napi';
import type { Codec } from '../domain/frame-maker.ts';

export const nativeCodec: Codec = {
  checksum: (bytes, length, region, firstPage) => checksum(bytes, 0, length, region, firstPage),
  isZero(bytes, length, pageSizeBytes) {
    const runs = zeroRuns(bytes, 0, length, pageSizeBytes);
    return runs.length === 2 && runs[1] === length / pageSizeBytes;
  },
  compress: (bytes) => compressSync(bytes),
};
