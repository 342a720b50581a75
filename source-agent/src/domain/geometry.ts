/** What a region list may look like, whatever memory it describes. */
import { ErrorReason, PagewakeError } from '@pagewake/agent-kit/lane';
import type { Region } from './guest-image.ts';

export const PAGE_SIZES_BYTES: readonly number[] = [4096, 2 * 1024 * 1024];
const MAX_REGIONS = 1024;

/** A region and where it begins: a file offset or an address, in bytes. */
export interface PlacedRegion extends Region {
  readonly startBytes: number;
}

export function sizeBytes(region: Region): number {
  return region.pageSizeBytes * region.pageCount;
}

/**
 * Throws INVALID_ARGUMENT, naming the region and the numbers, unless every region has a known page size, at least one page and an
 * aligned start. `startName` is what the start is called: "file_offset", "address".
 */
export function checkRegions(regions: readonly PlacedRegion[], startName: string): void {
  if (regions.length === 0) throw invalid('no regions: give at least one', {});
  if (regions.length > MAX_REGIONS) {
    throw invalid(`${String(regions.length)} regions: at most ${String(MAX_REGIONS)}`, { found: regions.length });
  }
  for (const [index, region] of regions.entries()) checkRegion(index, region, startName);
}

function checkRegion(index: number, region: PlacedRegion, startName: string): void {
  const { pageSizeBytes, pageCount, startBytes } = region;
  const where = `region ${String(index)}`;
  if (!PAGE_SIZES_BYTES.includes(pageSizeBytes)) {
    const expected = PAGE_SIZES_BYTES.join(' or ');
    throw invalid(`${where}: page_size_bytes ${String(pageSizeBytes)}; must be ${expected}`, {
      region: index,
      expected,
      found: pageSizeBytes,
    });
  }
  if (pageCount === 0) throw invalid(`${where}: page_count 0; must be at least 1`, { region: index, found: 0 });
  if (!Number.isSafeInteger(startBytes) || startBytes < 0 || !Number.isSafeInteger(startBytes + sizeBytes(region))) {
    throw invalid(
      `${where}: ${startName} ${String(startBytes)} with ${String(pageCount)} pages ends beyond 2^53 bytes`,
      {
        region: index,
        found: startBytes,
      },
    );
  }
  if (startBytes % pageSizeBytes !== 0) {
    throw invalid(
      `${where}: ${startName} ${String(startBytes)} is not a multiple of its page size ${String(pageSizeBytes)}`,
      {
        region: index,
        expected: `a multiple of ${String(pageSizeBytes)}`,
        found: startBytes,
      },
    );
  }
}

/**
 * Throws INVALID_ARGUMENT, naming both regions, where two share a byte. Starts are places in one memory, unless `memoryOf` tells the memories of
 * the regions apart.
 */
export function checkOverlap(
  regions: readonly PlacedRegion[],
  startName: string,
  memoryOf: (index: number) => string = () => '',
): void {
  const memories = Map.groupBy(regions.entries(), ([index]) => memoryOf(index));
  for (const inOne of memories.values()) {
    const ordered = inOne.sort(([, a], [, b]) => a.startBytes - b.startBytes);
    for (const [place, [index, region]] of ordered.entries()) {
      const next = ordered[place + 1];
      const endBytes = region.startBytes + sizeBytes(region);
      if (next === undefined || endBytes <= next[1].startBytes) continue;
      throw invalid(
        `region ${String(next[0])} begins at ${startName} ${String(next[1].startBytes)}, ` +
          `inside region ${String(index)} (${String(region.startBytes)} to ${String(endBytes)})`,
        { region: next[0], overlaps: index },
      );
    }
  }
}

/** Throws GEOMETRY_MISMATCH unless the destination's regions are exactly the source's. */
export function checkSameGeometry(source: readonly Region[], destination: readonly Region[]): void {
  if (source.length !== destination.length) {
    throw new PagewakeError(
      ErrorReason.GEOMETRY_MISMATCH,
      `the source has ${String(source.length)} regions, the destination ${String(destination.length)}`,
      { expected: source.length, found: destination.length },
    );
  }
  for (const [index, expected] of source.entries()) {
    const found = destination[index];
    if (found?.pageSizeBytes !== expected.pageSizeBytes || found.pageCount !== expected.pageCount) {
      throw new PagewakeError(
        ErrorReason.GEOMETRY_MISMATCH,
        `region ${String(index)}: the source has ${describe(expected)}, the destination ${describe(found)}`,
        { region: index, expected: describe(expected), found: describe(found) },
      );
    }
  }
}

/**
 * Throws OUT_OF_RANGE unless the run lies in a region that there is; returns that region. An empty run is out of range too:
 * there is no frame that could answer it.
 */
export function checkRun(regions: readonly Region[], region: number, firstPage: number, pageCount: number): Region {
  const found = regions[region];
  if (found === undefined) {
    throw outOfRange(`region ${String(region)} does not exist: there are ${String(regions.length)}`, region, firstPage);
  }
  if (pageCount === 0 || firstPage + pageCount > found.pageCount) {
    throw outOfRange(
      `region ${String(region)}: pages ${String(firstPage)} to ${String(firstPage + pageCount)} (exclusive) are not ` +
        `a run of its ${String(found.pageCount)} pages`,
      region,
      firstPage,
    );
  }
  return found;
}

function describe(region: Region | undefined): string {
  return region === undefined ? 'none' : `${String(region.pageCount)} pages of ${String(region.pageSizeBytes)} bytes`;
}

function invalid(message: string, metadata: Record<string, string | number>): PagewakeError {
  return new PagewakeError(ErrorReason.INVALID_ARGUMENT, message, metadata);
}

function outOfRange(message: string, region: number, page: number): PagewakeError {
  return new PagewakeError(ErrorReason.OUT_OF_RANGE, message, { region, page });
}
