import type { Region, ZeroRunList } from './guest-image.ts';

/** What one page is, and up to which page (exclusive) the same holds. */
export interface Stretch {
  readonly zero: boolean;
  readonly endPage: number;
}

/** Which pages hold only zeros: found once when the VM paused, never sent. */
export class ZeroTable {
  readonly zeroPages: number;
  readonly dataPages: number;
  readonly lists: readonly ZeroRunList[];
  readonly #regions: readonly Region[];

  constructor(regions: readonly Region[], lists: readonly ZeroRunList[]) {
    this.#regions = regions;
    this.lists = lists;
    this.zeroPages = lists.reduce((sum, list) => sum + list.pageCounts.reduce((a, b) => a + b, 0), 0);
    this.dataPages = regions.reduce((sum, region) => sum + region.pageCount, 0) - this.zeroPages;
  }

  at(region: number, page: number): Stretch {
    const list = this.lists[region];
    const regionEnd = this.#regions[region]?.pageCount ?? 0;
    if (list === undefined) return { zero: false, endPage: regionEnd };
    // The first run that begins after the page; the one before it is the only one that can hold it.
    let low = 0;
    let high = list.firstPages.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((list.firstPages[middle] ?? 0) <= page) low = middle + 1;
      else high = middle;
    }
    const runEnd = low === 0 ? 0 : (list.firstPages[low - 1] ?? 0) + (list.pageCounts[low - 1] ?? 0);
    if (page < runEnd) return { zero: true, endPage: runEnd };
    return { zero: false, endPage: list.firstPages[low] ?? regionEnd };
  }
}

/** From pairs (start, length) in bytes relative to the region to runs of its pages. */
export function zeroRunList(pairs: Float64Array, originBytes: number, pageSizeBytes: number): ZeroRunList {
  const count = pairs.length / 2;
  const firstPages = new Uint32Array(count);
  const pageCounts = new Uint32Array(count);
  for (let i = 0; i < count; i++) {
    firstPages[i] = ((pairs[2 * i] ?? 0) - originBytes) / pageSizeBytes;
    pageCounts[i] = (pairs[2 * i + 1] ?? 0) / pageSizeBytes;
  }
  return { firstPages, pageCounts };
}
