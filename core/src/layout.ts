/**
 * Where every page of a VM is: in its region, in the guest memory image, in the page ledger, in the memory file and at
 * the VMM's own addresses. Pure arithmetic on numbers below 2^53.
 */

/** Page sizes that userfaultfd and the wire know, in bytes. */
export const PAGE_SIZES_BYTES: readonly number[] = [4096, 2 * 1024 * 1024];

/** What the wire says of a region. */
export interface RegionShape {
  readonly pageSizeBytes: number;
  readonly pageCount: number;
}

/** A region as its VMM handed it over. */
export interface Region extends RegionShape {
  readonly index: number;
  /** The VMM's own address. Never leaves this host. */
  readonly address: number;
  readonly sizeBytes: number;
  /** Place in the guest memory image, bytes. */
  readonly offset: number;
  /** Which of the VM's memory files holds it, counted from 0. */
  readonly file: number;
  /** Place in that memory file, bytes. */
  readonly fileOffset: number;
  /** Where the guest sees it, where its VMM says so. */
  readonly gpaStart: number | undefined;
  /** What its VMM calls it, where it says so. */
  readonly name: string | undefined;
  /** Ledger number of the region's first page. */
  readonly firstLedgerPage: number;
}

export interface RegionInput {
  readonly address: number;
  readonly sizeBytes: number;
  readonly offset: number;
  readonly pageSizeBytes: number;
  readonly fileOffset: number;
  /** Default: 0, the only one. */
  readonly file?: number;
  readonly gpaStart?: number | undefined;
  readonly name?: string | undefined;
}

/** A page by region, as the wire names it. */
export interface PagePlace {
  readonly region: Region;
  readonly page: number;
}

export class LayoutError extends Error {
  override readonly name = 'LayoutError';
}

const MAX_PAGES = 2 ** 32 - 1;
const MAX_REGIONS = 1024;

function checkRegion(input: RegionInput, index: number, expectedOffset: number): void {
  const at = `region ${index}`;
  for (const [name, value] of [
    ['base_host_virt_addr', input.address],
    ['size', input.sizeBytes],
    ['offset', input.offset],
    ['file_offset', input.fileOffset],
    ['gpa_start', input.gpaStart ?? 0],
  ] as const) {
    if (!Number.isSafeInteger(value) || value < 0)
      throw new LayoutError(`${at}: ${name} is ${value}, not a whole number of bytes`);
    if (value % input.pageSizeBytes !== 0)
      throw new LayoutError(`${at}: ${name} ${value} is not a multiple of its page size ${input.pageSizeBytes}`);
  }
  if (input.sizeBytes === 0) throw new LayoutError(`${at}: size is 0`);
  if (!Number.isSafeInteger(input.address + input.sizeBytes))
    throw new LayoutError(`${at}: its end lies beyond the address space`);
  if (!Number.isSafeInteger((input.gpaStart ?? 0) + input.sizeBytes))
    throw new LayoutError(`${at}: its end lies beyond the guest's address space`);
  if (input.offset !== expectedOffset)
    throw new LayoutError(
      `${at}: offset is ${input.offset}; regions follow each other, so ${expectedOffset} was expected`,
    );
}

function refuseOverlap(regions: readonly Region[], start: (r: Region) => number, what: string): void {
  let previous: Region | undefined;
  for (const region of regions.toSorted((a, b) => start(a) - start(b))) {
    if (previous && start(previous) + previous.sizeBytes > start(region))
      throw new LayoutError(`regions ${previous.index} and ${region.index} overlap in their ${what}`);
    previous = region;
  }
}

/** The regions of one VM, checked, with the translations between them. */
export class GuestLayout {
  readonly regions: readonly Region[];
  readonly pageCount: number;
  readonly sizeBytes: number;
  readonly #byAddress: readonly Region[];

  /** @throws LayoutError that names the region and the number that is wrong. */
  constructor(inputs: readonly RegionInput[]) {
    if (inputs.length === 0) throw new LayoutError('no regions');
    if (inputs.length > MAX_REGIONS) throw new LayoutError(`${inputs.length} regions; at most ${MAX_REGIONS}`);
    const regions: Region[] = [];
    let offset = 0;
    let ledgerPage = 0;
    for (const [index, input] of inputs.entries()) {
      if (!PAGE_SIZES_BYTES.includes(input.pageSizeBytes))
        throw new LayoutError(
          `region ${index}: page size ${input.pageSizeBytes}; ${PAGE_SIZES_BYTES.join(' or ')} is possible`,
        );
      checkRegion(input, index, offset);
      const pageCount = input.sizeBytes / input.pageSizeBytes;
      regions.push({
        file: 0,
        gpaStart: undefined,
        name: undefined,
        ...input,
        index,
        pageCount,
        firstLedgerPage: ledgerPage,
      });
      offset += input.sizeBytes;
      ledgerPage += pageCount;
    }
    if (ledgerPage > MAX_PAGES) throw new LayoutError(`${ledgerPage} pages; at most ${MAX_PAGES}`);
    this.regions = regions;
    this.pageCount = ledgerPage;
    this.sizeBytes = offset;
    this.#byAddress = regions.toSorted((a, b) => a.address - b.address);
    refuseOverlap(regions, (r) => r.address, 'addresses');
    for (const file of new Set(regions.map((r) => r.file)))
      refuseOverlap(
        regions.filter((r) => r.file === file),
        (r) => r.fileOffset,
        'places in the memory file',
      );
    refuseOverlap(
      regions.filter((r) => r.gpaStart !== undefined),
      (r) => r.gpaStart ?? 0,
      'guest addresses',
    );
  }

  /** The page that holds an address of the VMM, or undefined where no region does. */
  atAddress(address: number): PagePlace | undefined {
    for (const region of this.#byAddress) {
      if (address < region.address) return undefined;
      if (address < region.address + region.sizeBytes)
        return { region, page: Math.floor((address - region.address) / region.pageSizeBytes) };
    }
    return undefined;
  }

  /** The page that holds an offset of the guest memory image. */
  atOffset(offset: number): PagePlace | undefined {
    const region = this.regions.findLast((r) => r.offset <= offset);
    if (!region || offset >= region.offset + region.sizeBytes) return undefined;
    return { region, page: Math.floor((offset - region.offset) / region.pageSizeBytes) };
  }

  /** The page that the guest sees at a physical address; undefined where no region says that it has it. */
  atGpa(gpa: number): PagePlace | undefined {
    for (const region of this.regions) {
      const at = gpa - (region.gpaStart ?? Infinity);
      if (at >= 0 && at < region.sizeBytes) return { region, page: Math.floor(at / region.pageSizeBytes) };
    }
    return undefined;
  }

  /** The page with a number of the ledger. */
  atLedgerPage(ledgerPage: number): PagePlace | undefined {
    const region = this.regions.findLast((r) => r.firstLedgerPage <= ledgerPage);
    if (!region || ledgerPage >= region.firstLedgerPage + region.pageCount) return undefined;
    return { region, page: ledgerPage - region.firstLedgerPage };
  }

  /** Says what differs from another side's shapes, or undefined where nothing does. */
  mismatch(shapes: readonly RegionShape[]): string | undefined {
    if (shapes.length !== this.regions.length) return `${shapes.length} regions there, ${this.regions.length} here`;
    for (const region of this.regions) {
      const shape = shapes[region.index];
      if (shape?.pageSizeBytes !== region.pageSizeBytes || shape.pageCount !== region.pageCount)
        return (
          `region ${region.index}: ${shape?.pageCount} pages of ${shape?.pageSizeBytes} bytes there, ` +
          `${region.pageCount} of ${region.pageSizeBytes} here`
        );
    }
    return undefined;
  }
}
