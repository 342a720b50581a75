/** What a VMM handed over, looked at before anything is built on it. The descriptors are closed with this object. */
import { closeSync, fstatSync, readFileSync } from 'node:fs';
import type { DescriptorName, MemoryTraits, VmmOffer } from '@pagewake/core';
import { duplicateDescriptor, MemoryFile, UFFD_FEATURE } from '@pagewake/native';
import { ErrorReason, PagewakeError } from '../kit.ts';

const HUGE_PAGE_BYTES = 2 * 1024 * 1024;

export class OfferedMemory {
  readonly #offer: VmmOffer;
  readonly #descriptors: ReadonlyMap<DescriptorName, number>;
  readonly #uffdFeatures: number;
  readonly traits: MemoryTraits;

  /**
   * Owns the descriptors from here on, also where it throws.
   * @throws PagewakeError BAD_HANDSHAKE where the memory is not what the offer says
   */
  constructor(offer: VmmOffer, descriptors: readonly number[]) {
    this.#offer = offer;
    this.#descriptors = new Map(offer.descriptors.map((name, index) => [name, descriptors[index] ?? -1]));
    try {
      const uffd = this.#descriptors.get('uffd');
      this.#uffdFeatures = uffd === undefined ? 0 : featuresOf(uffd);
      this.#checkFile();
      const file = this.#descriptors.has('guest_memfd')
        ? 'guest-memfd'
        : this.#descriptors.has('memfd')
          ? 'shared'
          : 'none';
      const huge = offer.layout.regions.some((r) => r.pageSizeBytes === HUGE_PAGE_BYTES);
      this.traits = { file, huge, minor: offer.minor, exactWrite: this.#writeIsExact() };
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
  duplicate(): { readonly uffd: number | undefined; readonly files: readonly number[] } {
    const copy = (fd: number | undefined): number | undefined =>
      fd === undefined ? undefined : duplicateDescriptor(fd);
    return {
      uffd: copy(this.#descriptors.get('uffd')),
      files: [this.#fileDescriptor()].filter((fd) => fd !== undefined).map((fd) => duplicateDescriptor(fd)),
    };
  }

  close(): void {
    for (const fd of this.#descriptors.values()) if (fd >= 0) closeSync(fd);
    (this.#descriptors as Map<DescriptorName, number>).clear();
  }

  #fileDescriptor(): number | undefined {
    return this.#descriptors.get('guest_memfd') ?? this.#descriptors.get('memfd');
  }

  /** Asked of the file's own mount where it has one that can be seen (tmpfs), else of a memfd of ours. */
  #writeIsExact(): boolean {
    const fd = this.#fileDescriptor();
    const huge = fd === undefined ? undefined : hugeOptionOf(fd);
    return huge === undefined ? writeIsExact() : huge === 'never';
  }

  #checkFile(): void {
    const fd = this.#fileDescriptor();
    if (fd === undefined) return;
    const wanted = this.#descriptors.has('guest_memfd') ? ['guest_memfd'] : ['memfd-or-shmem', 'hugetlbfs'];
    const file = MemoryFile.adopt(duplicateDescriptor(fd));
    try {
      const kind = file.kind();
      if (!wanted.includes(kind)) throw bad(`the memory file is a ${kind}; ${wanted.join(' or ')} was expected`);
      const sizeBytes = file.sizeBytes();
      // Has no SEEK_DATA that tells: all of it is called data. Its blocks do.
      const { blocks } = fstatSync(fd);
      if (kind === 'hugetlbfs' && blocks > 0) throw bad(notEmpty('the memory file', blocks * 512));
      for (const region of this.#offer.layout.regions) {
        if (region.fileOffset + region.sizeBytes > sizeBytes)
          throw bad(
            `region ${region.index} ends at byte ${region.fileOffset + region.sizeBytes} of a memory file of ${sizeBytes} bytes`,
          );
        if (kind === 'memfd-or-shmem') refuseFilled(file, region.fileOffset, region.sizeBytes, region.index);
      }
    } finally {
      file.close();
    }
  }
}

/** A page that is there already never faults: the guest would read whatever it holds, zeros as a rule. */
function refuseFilled(file: MemoryFile, offset: number, sizeBytes: number, region: number): void {
  const runs = file.dataRuns(offset, sizeBytes);
  let bytes = 0;
  for (let i = 1; i < runs.length; i += 2) bytes += runs[i] ?? 0;
  if (bytes > 0) throw bad(notEmpty(`region ${region}`, bytes));
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
