/** What a destination may ask for at once, on either path of bulk. */
import { ErrorReason, PagewakeError } from '@pagewake/agent-kit/lane';
import type { PageRun } from '@pagewake/proto';

/** A range is at most 4 MiB of 4 KiB pages, or one page of 2 MiB. */
const MAX_RANGE_PAGES_4K = 1024;
const MAX_RANGE_PAGES_2M = 1;
const SMALL_PAGE_BYTES = 4096;
export const CHUNK_BYTES = 256 * 1024;

export function checkRangeSize(range: PageRun, pageSizeBytes: number): void {
  const most = pageSizeBytes === SMALL_PAGE_BYTES ? MAX_RANGE_PAGES_4K : MAX_RANGE_PAGES_2M;
  if (range.pageCount <= most) return;
  throw new PagewakeError(
    ErrorReason.OUT_OF_RANGE,
    `a range of ${String(range.pageCount)} pages of ${String(pageSizeBytes)} bytes is too large; at most ${String(most)}`,
    { region: range.region, expected: most, found: range.pageCount },
  );
}
