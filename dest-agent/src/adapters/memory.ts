/**
 * The VM's memory on this host: pages by region and number on one side, addresses and descriptors on the other. Host addresses
 * end here.
 */
import { GuestLayout, type PagePlace, type Region, type RegionInput } from '@pagewake/core';
import {
  duplicateDescriptor,
  MemoryFile,
  ProcessMemory,
  Uffd,
  UserfaultBitmap,
  type Outcome,
  type PageLedger,
} from '@pagewake/native';

export type { Outcome } from '@pagewake/native';

export interface MemoryDescriptors {
  readonly uffd: number | undefined;
  /** In the order in which regions name them; none for anonymous memory. */
  readonly files: readonly number[];
  /** Of the one file that came with it: bit n is that file's page n. */
  readonly bitmap: number | undefined;
  readonly pid: number | undefined;
  /** Ledger pages that an agent that died may have installed without noting it. */
  readonly inDoubt?: readonly number[];
}

/** A run of pages inside one region. */
export interface PlacedRun {
  readonly region: Region;
  readonly firstPage: number;
  readonly pageCount: number;
}

const NO_UFFD: Outcome = { kind: 'refused', bytes: 0, errno: 'ENODEV' };

export class VmMemory {
  readonly layout: GuestLayout;
  readonly uffd: Uffd | undefined;
  readonly #files: readonly MemoryFile[];
  readonly #bitmap: UserfaultBitmap | undefined;
  readonly #process: ProcessMemory | undefined;
  readonly #inDoubt: ReadonlySet<number>;

  /** Takes the descriptors over: they are closed with this object. */
  constructor(regions: readonly RegionInput[], descriptors: MemoryDescriptors) {
    this.layout = new GuestLayout(regions);
    this.uffd = descriptors.uffd === undefined ? undefined : Uffd.adopt(descriptors.uffd);
    this.#files = descriptors.files.map((fd) => MemoryFile.adopt(fd));
    this.#bitmap =
      descriptors.bitmap === undefined
        ? undefined
        : UserfaultBitmap.adopt(descriptors.bitmap, bitmapPages(this.layout.regions));
    this.#inDoubt = new Set(descriptors.inDoubt);
    this.#process =
      descriptors.files.length === 0 && descriptors.pid !== undefined ? openProcess(descriptors.pid) : undefined;
  }

  /** Nobody's but ours, in one file: for a rehearsal. */
  static ofItsOwn(regions: readonly RegionInput[], sizeBytes: number): VmMemory {
    const file = MemoryFile.createMemfd('pagewake-rehearsal', sizeBytes);
    const files = [duplicateDescriptor(file.fd)];
    file.close();
    return new VmMemory(regions, { uffd: undefined, files, bitmap: undefined, pid: undefined });
  }

  copy(run: PlacedRun, bytes: Uint8Array, offset: number): Outcome {
    return this.uffd?.copy(addressOf(run), bytes, offset, sizeOf(run), true) ?? NO_UFFD;
  }

  /** One page, with the ledger's check and transition (`Uffd.copyRequested`). */
  copyRequested({ region, page }: PagePlace, bytes: Uint8Array, ledger: PageLedger): Outcome {
    const size = region.pageSizeBytes;
    const at = region.address + page * size;
    const ledgerPage = region.firstLedgerPage + page;
    const bit = this.#bitmap && { of: this.#bitmap, page: region.fileOffset / size + page };
    return this.uffd?.copyRequested(at, bytes, size, ledger, ledgerPage, bit) ?? NO_UFFD;
  }

  zeropage(run: PlacedRun): Outcome {
    return this.uffd?.zeropage(addressOf(run), sizeOf(run)) ?? NO_UFFD;
  }

  continue(run: PlacedRun): Outcome {
    return this.uffd?.continue(addressOf(run), sizeOf(run)) ?? NO_UFFD;
  }

  wake(run: PlacedRun): Outcome {
    return this.uffd?.wake(addressOf(run), sizeOf(run)) ?? NO_UFFD;
  }

  poison(run: PlacedRun): Outcome {
    return this.uffd?.poison(addressOf(run), sizeOf(run)) ?? NO_UFFD;
  }

  /** write() into the memory file: fills the page cache and nothing else; wakes nobody. */
  write(run: PlacedRun, bytes: Uint8Array, offset: number): Outcome {
    return this.#fileOf(run)?.write(bytes, offset, sizeOf(run), fileOffsetOf(run)) ?? NO_UFFD;
  }

  /** The same through a mapping, for a guest_memfd that cannot be written. */
  store(run: PlacedRun, bytes: Uint8Array, offset: number): Outcome {
    return this.#fileOf(run)?.store(bytes, offset, sizeOf(run), fileOffsetOf(run)) ?? NO_UFFD;
  }

  /** What a page that is present holds now. Never called for one that may be missing: that read would wait for itself. */
  readBack(run: PlacedRun, into: Uint8Array): Outcome {
    const file = this.#fileOf(run);
    // A guest_memfd has no read(), and a mapping makes pages of its holes: only the kernel's word that this is none allows it.
    if (file?.kind() === 'guest_memfd') return file.load(into, 0, sizeOf(run), fileOffsetOf(run));
    if (file) return file.read(into, 0, sizeOf(run), fileOffsetOf(run));
    return this.#process?.read(into, 0, sizeOf(run), addressOf(run)) ?? { kind: 'refused', bytes: 0, errno: 'ESRCH' };
  }

  /** The page may hold what came from the source already, and what the guest has written over it since. */
  isInDoubt(ledgerPage: number): boolean {
    return this.#inDoubt.has(ledgerPage);
  }

  /**
   * vCPUs do not exit on these pages any more. Only once the kernel said that they are there, and before anybody is answered or woken: who sees a clear bit
   * and no page may take zeros.
   */
  clearBits(run: PlacedRun): void {
    this.#bitmap?.clear(fileOffsetOf(run) / run.region.pageSizeBytes, run.pageCount);
  }

  /** No vCPU exits any more: what is not there now are zeros by nature. */
  clearAllBits(): void {
    this.#bitmap?.clear(0, this.#bitmap.pageCount);
  }

  unregister(region: Region): Outcome {
    return this.uffd?.unregister(region.address, region.sizeBytes) ?? NO_UFFD;
  }

  close(): void {
    this.uffd?.close();
    for (const file of this.#files) file.close();
    this.#bitmap?.close();
    this.#process?.close();
  }

  #fileOf(run: PlacedRun): MemoryFile | undefined {
    return this.#files[run.region.file];
  }
}

function openProcess(pid: number): ProcessMemory | undefined {
  try {
    return ProcessMemory.open(pid);
  } catch {
    // Another pid namespace, or gone: then nothing can be read back, and an unexpected page is an alarm.
    return undefined;
  }
}

/** The bits that the regions of a memory file need. */
export const bitmapPages = (regions: readonly Region[]): number =>
  Math.max(...regions.map((r) => (r.fileOffset + r.sizeBytes) / r.pageSizeBytes));

const addressOf = (run: PlacedRun): number => run.region.address + run.firstPage * run.region.pageSizeBytes;
const fileOffsetOf = (run: PlacedRun): number => run.region.fileOffset + run.firstPage * run.region.pageSizeBytes;
export const sizeOf = (run: PlacedRun): number => run.pageCount * run.region.pageSizeBytes;
