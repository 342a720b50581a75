/** What stands before a page on the wire, and what a request for one must be. */
import { ErrorReason, PagewakeError, unixMs } from '@pagewake/agent-kit';
import { Encoding, type FrameHead, type PageFault } from '@pagewake/proto';
import type { Frame, FrameEncoding } from '../../domain/frame-maker.ts';
import { checkRun } from '../../domain/geometry.ts';
import type { Region } from '../../domain/guest-image.ts';

const ENCODING: Readonly<Record<FrameEncoding, Encoding>> = {
  zero: Encoding.ZERO,
  raw: Encoding.RAW,
  lz4: Encoding.LZ4,
  sparse: Encoding.SPARSE,
};
const MAX_UINT32 = 0xffff_ffff;
const NS_A_MS = 1e6;
/** Of one run of neighbours. */
const MAX_RUN_BYTES = 4 * 1024 * 1024;

/** `receivedMs`: when the request came, `performance.now()`. */
export function frameHead(faultId: number, frame: Frame, receivedMs: number): FrameHead {
  return {
    id: faultId,
    done: false,
    region: frame.region,
    firstPage: frame.firstPage,
    pageCount: frame.pageCount,
    encoding: ENCODING[frame.encoding],
    checksum: frame.checksum,
    queueNs: nanoseconds(frame.beganMs - receivedMs),
    readNs: nanoseconds(frame.readMs),
    encodeNs: nanoseconds(frame.encodeMs),
    receivedAtMs: unixMs(receivedMs),
  };
}

/** A wait of more than 4.29 s does not fit the field, and is told as that. */
function nanoseconds(ms: number): number {
  return Math.min(MAX_UINT32, Math.max(0, Math.round(ms * NS_A_MS)));
}

/** @returns the page size. @throws PagewakeError OUT_OF_RANGE */
export function checkFault(regions: readonly Region[], { region, page, pageCount }: PageFault): number {
  const pages = Math.max(1, pageCount);
  const { pageSizeBytes } = checkRun(regions, region, page, pages);
  const most = MAX_RUN_BYTES / pageSizeBytes;
  if (pages <= most) return pageSizeBytes;
  throw new PagewakeError(
    ErrorReason.OUT_OF_RANGE,
    `a run of ${pages} pages of ${pageSizeBytes} bytes is too large for the demand lane; at most ${most}`,
    { region, expected: most, found: pages },
  );
}
