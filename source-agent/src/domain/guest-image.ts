/** The port to a VM's memory, whatever it is kept in. */

/** Regions follow each other in the guest memory image without gaps; a region is named by its place in the list. */
export interface Region {
  readonly pageSizeBytes: number;
  readonly pageCount: number;
}

/** Runs of zero pages of one region: ascending, half open, not touching. Parallel lists, counted in the region's pages. */
export interface ZeroRunList {
  readonly firstPages: Uint32Array;
  readonly pageCounts: Uint32Array;
}

export interface Readable {
  readonly regions: readonly Region[];
  /**
   * Reads a run into the start of `into`, synchronously. The run must lie in the region.
   * Throws MEMORY_UNREADABLE if any byte of it cannot be read; `into` then holds nothing of worth.
   */
  readRun(region: number, firstPage: number, pageCount: number, into: Uint8Array): void;
}

/** What another thread needs to read the same memory: plain data. Whoever gets it owns each `fd`. */
export type ImageShare =
  | {
      readonly kind: 'files';
      readonly regions: readonly (SharedPlace & { readonly name: string; readonly fd: number })[];
    }
  | { readonly kind: 'process'; readonly pid: number; readonly regions: readonly SharedPlace[] };

type SharedPlace = Region & { readonly startBytes: number };

export interface GuestImage extends Readable {
  /** What it was opened from, so that it can be told whether the same is found again. */
  readonly identity: string;
  /**
   * Of the holes that were found when the image was opened, those that are holes still; one list a region. The guest stands still and runs
   * nowhere while this looks, so it is synchronous, reads no memory, and takes about a millisecond. Throws MEMORY_UNREADABLE.
   */
  holes(): readonly ZeroRunList[];
  /** Throws where the image is closed. */
  share(): ImageShare;
  /** Idempotent. Nothing may be read afterwards. */
  close(): void;
}
