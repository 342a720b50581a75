/** What a VMM handed over, looked at before anything is built on it. The descriptors are closed with this object. */
import { closeSync, fstatSync, readFileSync } from 'node:fs';
import type { MemoryTraits, Region, VmmOffer } from '@pagewake/core';
import { duplicateDescriptor, MemoryFile, NativeError, UFFD_FEATURE, UserfaultBitmap } from '@pagewake/native';
import { ErrorReason, PagewakeError } from '../kit.ts';
import { bitmapPages, type MemoryDescriptors } from './memory.ts';

const HUGE_PAGE_BYTES = 2 * 1024 * 1024;
/** What `st_blocks` counts. */
const BLOCK_BYTES = 512;
const FILES: ReadonlySet<string | undefined> = new Set(['memfd', 'guest_memfd']);

/** Pages of one region. */
export interface PageRun {
  readonly firstPage: number;
  readonly pageCount: number;
}

export class OfferedMemory {
  readonly #offer: VmmOffer;
  readonly #all: readonly number[];
  readonly #uffd: number | undefined;
  /** In the order in which regions name them. */
  readonly #files: readonly number[];
  readonly #bitmap: number | undefined;
  readonly #uffdFeatures: number;
  readonly traits: MemoryTraits;
  /** What the files held and was thrown away, as the offer allows. */
  readonly discardedBytes: number;
  #closed = false;

  /**
   * Owns the descriptors from here on, also where it throws.
   * @throws PagewakeError BAD_HANDSHAKE where the memory is not what the offer says
   */
  constructor(offer: VmmOffer, descriptors: readonly number[]) {
    this.#offer = offer;
    this.#all = descriptors;
    this.#uffd = descriptors[offer.descriptors.indexOf('uffd')];
    this.#files = descriptors.filter((_fd, index) => FILES.has(offer.descriptors[index]));
    this.#bitmap = descriptors[offer.descriptors.indexOf('bitmap')];
    try {
      this.#uffdFeatures = this.#uffd === undefined ? 0 : featuresOf(this.#uffd);
      const guestMemfd = offer.descriptors.includes('guest_memfd');
      if (offer.content === 'discard' && this.#files.length === 0)
        throw bad('what the memory holds is to be thrown away (content: discard), but no memory file came over');
      this.#refuseSameFile();
      this.discardedBytes = this.#files.reduce((sum, fd, file) => sum + this.#checkFile(fd, file, guestMemfd), 0);
      const file = guestMemfd ? 'guest-memfd' : this.#files.length > 0 ? 'shared' : 'none';
      const huge = offer.layout.regions.some((r) => r.pageSizeBytes === HUGE_PAGE_BYTES);
      if (this.#bitmap !== undefined) checkBitmap(this.#bitmap, offer.layout.regions);
      this.traits = {
        ...{ file, huge, minor: offer.minor },
        // A guest_memfd has pages of its own kind: what shmem's are set to is nothing to it.
        exactWrite: guestMemfd || this.#writeIsExact(),
        writable: this.#files.every((fd) => isWritable(fd)),
        bitmap: this.#bitmap !== undefined,
      };
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** The kernel will tell of ranges that the VMM gives back. */
  get removeEvents(): boolean {
    return (this.#uffdFeatures & (UFFD_FEATURE.eventRemove | UFFD_FEATURE.eventUnmap)) !== 0;
  }

  /** Events carry thread ids, so that a vCPU's fault can be told from another's. */
  get threadIds(): boolean {
    return (this.#uffdFeatures & UFFD_FEATURE.threadId) !== 0;
  }

  /** Copies of the descriptors for one lane, which closes them. */
  duplicate(): Pick<MemoryDescriptors, 'uffd' | 'files' | 'bitmap'> {
    return {
      uffd: this.#uffd === undefined ? undefined : duplicateDescriptor(this.#uffd),
      files: this.#files.map((fd) => duplicateDescriptor(fd)),
      bitmap: this.#bitmap === undefined ? undefined : duplicateDescriptor(this.#bitmap),
    };
  }

  /** The pages of a region that its file holds, as runs; swapped out or not. Undefined where there is no file that can tell. */
  heldPages(region: Region): readonly PageRun[] | undefined {
    const fd = this.#files[region.file];
    if (fd === undefined || this.traits.file !== 'shared' || this.traits.huge) return undefined;
    const file = MemoryFile.adopt(duplicateDescriptor(fd));
    try {
      const runs = file.dataRuns(region.fileOffset, region.sizeBytes);
      const held: PageRun[] = [];
      for (let i = 0; i < runs.length; i += 2) {
        const firstPage = ((runs[i] ?? 0) - region.fileOffset) / region.pageSizeBytes;
        held.push({ firstPage, pageCount: (runs[i + 1] ?? 0) / region.pageSizeBytes });
      }
      return held;
    } finally {
      file.close();
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const fd of this.#all) closeSync(fd);
  }

  /** Asked of the files' own mounts where they have one that can be seen (tmpfs), else of a memfd of ours. */
  #writeIsExact(): boolean {
    if (this.#files.length === 0) return writeIsExact();
    return this.#files.every((fd) => {
      const huge = hugeOptionOf(fd);
      return huge === undefined ? writeIsExact() : huge === 'never';
    });
  }

  /** Two descriptors of one file would make two regions of one memory, unnoticed. */
  #refuseSameFile(): void {
    const inodes = this.#files.map((fd) => {
      const { dev, ino } = fstatSync(fd, { bigint: true });
      return `${dev}:${ino}`;
    });
    const second = inodes.findIndex((inode, file) => inodes.indexOf(inode) !== file);
    if (second >= 0) throw bad(`memory files ${inodes.indexOf(inodes[second] ?? '')} and ${second} are the same file`);
  }

  /** @returns how many bytes were thrown away */
  #checkFile(fd: number, index: number, guestMemfd: boolean): number {
    const what = this.#files.length > 1 ? `memory file ${index}` : 'the memory file';
    const wanted = guestMemfd ? ['guest_memfd'] : ['memfd-or-shmem', 'hugetlbfs'];
    const regions = this.#offer.layout.regions.filter((region) => region.file === index);
    const file = MemoryFile.adopt(duplicateDescriptor(fd));
    try {
      const kind = file.kind();
      if (!wanted.includes(kind)) throw bad(`${what} is a ${kind}; ${wanted.join(' or ')} was expected`);
      const sizeBytes = file.sizeBytes();
      for (const region of regions)
        if (region.fileOffset + region.sizeBytes > sizeBytes)
          throw bad(
            `${nameOf(region)} ends at byte ${region.fileOffset + region.sizeBytes} of a memory file of ${sizeBytes} bytes`,
          );
      if (this.#offer.content === 'live') return 0;
      const discarded = this.#offer.content === 'discard' ? discard(file, kind, fd, regions) : 0;
      // Has no SEEK_DATA that tells: all of it is called data. Its blocks do.
      const { blocks } = fstatSync(fd);
      if (kind === 'hugetlbfs' && blocks > 0) throw bad(notEmpty(what, blocks * BLOCK_BYTES));
      if (kind === 'memfd-or-shmem') for (const region of regions) refuseFilled(file, region);
      return discarded;
    } finally {
      file.close();
    }
  }
}

/** Whether every memory file that came over takes a write(). */
export function filesAreWritable(offer: VmmOffer, descriptors: readonly number[]): boolean {
  return descriptors.every((fd, index) => !FILES.has(offer.descriptors[index]) || isWritable(fd));
}

function isWritable(fd: number): boolean {
  const file = MemoryFile.adopt(duplicateDescriptor(fd));
  try {
    return file.writable();
  } finally {
    file.close();
  }
}

/** Maps it once, as every lane will: what is wrong with it is said before anything is built on it. */
function checkBitmap(fd: number, regions: readonly Region[]): void {
  const own = duplicateDescriptor(fd);
  try {
    UserfaultBitmap.adopt(own, bitmapPages(regions)).close();
  } catch (error) {
    closeSync(own);
    if (error instanceof NativeError) throw bad(`the bitmap cannot be used: ${error.message}`);
    throw error;
  }
}

/** Throws away what is there. @returns how much that was */
function discard(file: MemoryFile, kind: string, fd: number, regions: readonly Region[]): number {
  const told = kind === 'memfd-or-shmem';
  const before = fstatSync(fd).blocks;
  for (const region of regions) {
    const { fileOffset, sizeBytes } = region;
    // Only what holds something: a hole over all of a large file takes its time even where nothing is there.
    const runs = told ? file.dataRuns(fileOffset, sizeBytes) : [fileOffset, sizeBytes];
    for (let i = 0; i < runs.length; i += 2) {
      const outcome = file.punch(runs[i] ?? 0, runs[i + 1] ?? 0);
      if (outcome.kind !== 'done')
        throw bad(
          `what ${nameOf(region)} holds cannot be thrown away: ${outcome.kind === 'refused' ? outcome.errno : outcome.kind}`,
        );
    }
  }
  return Math.max(0, before - fstatSync(fd).blocks) * BLOCK_BYTES;
}

const nameOf = ({ index, name }: Region): string =>
  name === undefined ? `region ${index}` : `region ${index} (${name})`;

/** A page that is there already never faults: the guest would read whatever it holds, zeros as a rule. */
function refuseFilled(file: MemoryFile, region: Region): void {
  const runs = file.dataRuns(region.fileOffset, region.sizeBytes);
  let bytes = 0;
  for (let i = 1; i < runs.length; i += 2) bytes += runs[i] ?? 0;
  if (bytes > 0) throw bad(notEmpty(nameOf(region), bytes));
}

const notEmpty = (what: string, bytes: number): string =>
  `${what} is not empty: ${bytes} bytes of it are populated, which no fault will ever replace. ` +
  'Start the destination without preallocation (prealloc=off) and do not touch its memory before the handshake';

const bad = (message: string): PagewakeError => new PagewakeError(ErrorReason.BAD_HANDSHAKE, message);

/**
 * The features that the VMM chose in its UFFDIO_API handshake. The kernel shows them in fdinfo ("API:\taa:<features>:<ioctls>", hexadecimal);
 * there is no other way to ask, as a second handshake is refused.
 */
function featuresOf(fd: number): number {
  let text: string;
  try {
    text = readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8');
  } catch {
    throw bad('the userfaultfd that came over cannot be looked at');
  }
  const match = /^API:\s*[0-9a-f]+:([0-9a-f]+):/m.exec(text);
  if (!match?.[1]) throw bad('the descriptor that is named uffd is not a userfaultfd');
  return Number.parseInt(match[1], 16);
}

/** The `huge=` option of the mount that a file is on; undefined where the mount is not visible (a memfd) or has none. */
function hugeOptionOf(fd: number): string | undefined {
  const mountId = /^mnt_id:\s*(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1];
  const mount = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .find((line) => line.startsWith(`${mountId} `));
  return /\bhuge=([a-z_]+)/.exec(mount ?? '')?.[1];
}

let exact: boolean | undefined;

/**
 * Whether a write() of one page into a memfd fills that page only. With shmem huge pages always on it may fill two megabytes, and the neighbours
 * would look present and read as zeros. Found by doing it, once.
 */
function writeIsExact(): boolean {
  if (exact !== undefined) return exact;
  const pageBytes = 4096;
  const file = MemoryFile.createMemfd('pagewake-probe', 2 * HUGE_PAGE_BYTES);
  try {
    file.write(Buffer.alloc(pageBytes, 1), 0, pageBytes, HUGE_PAGE_BYTES);
    const runs = file.dataRuns(0, 2 * HUGE_PAGE_BYTES);
    exact = runs.length === 2 && runs[0] === HUGE_PAGE_BYTES && runs[1] === pageBytes;
  } finally {
    file.close();
  }
  return exact;
}
