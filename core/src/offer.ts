/** What a VMM hands over, whatever its dialect. */
import type { Dialect } from './dialects/dialect.ts';
import type { GuestLayout } from './layout.ts';

export type DescriptorName = 'uffd' | 'memfd' | 'guest_memfd' | 'bitmap';

/**
 * What the memory holds as it is handed over. `empty`: nothing, which is checked. `discard`: nobody has run on it, so what it holds may be thrown
 * away. `live`: a guest may run on it, so only who continues its migration may take it.
 */
export type OfferedContent = 'empty' | 'discard' | 'live';

export interface VmmOffer {
  readonly dialect: Dialect;
  /** The VM that the VMM says it is; Firecracker does not say. */
  readonly vmId: string | undefined;
  readonly layout: GuestLayout;
  readonly content: OfferedContent;
  /** Live memory: what the guest gave back last. The agent that died may have read of it and not have come to note it. */
  readonly givenBack: readonly { readonly offset: number; readonly len: number }[];
  /** What each descriptor is, in the order in which they came. The regions' `file` counts the memory files among them. */
  readonly descriptors: readonly DescriptorName[];
  readonly missing: boolean;
  readonly minor: boolean;
  /** Thread ids of vCPU threads, as the VMM itself sees them. */
  readonly vcpuThreads: readonly number[];
}

const BITMAP_PAGE_BYTES = 4096;

/** What is wrong with a bitmap of stage-2 faults beside this memory; undefined where nothing is, or where none came. */
export function whyNoBitmap(descriptors: readonly DescriptorName[], layout: GuestLayout): string | undefined {
  if (!descriptors.includes('bitmap')) return undefined;
  const files = descriptors.filter((name) => name === 'memfd' || name === 'guest_memfd').length;
  if (files !== 1) return `a bitmap is of one memory file's pages; ${files} memory files came with it`;
  // A bit is a page of 4096 bytes: one of 2 MiB would have 512, of which a vCPU may see some set and some clear.
  const large = layout.regions.find((region) => region.pageSizeBytes !== BITMAP_PAGE_BYTES);
  return large && `region ${large.index}: page size ${large.pageSizeBytes}; with a bitmap it is ${BITMAP_PAGE_BYTES}`;
}
