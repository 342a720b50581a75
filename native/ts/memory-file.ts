import { binding } from './binding.ts';
import type { HandedFd, NativeMemoryFile, OwnedFd } from './binding.ts';
import { toOutcome } from './outcome.ts';
import type { Outcome } from './types.ts';

export type MemoryFileKind = 'memfd-or-shmem' | 'hugetlbfs' | 'regular' | 'guest_memfd' | 'other';

/** Flags of `createGuestMemfd` (linux/kvm.h; the last one only in patched kernels). */
export const GUEST_MEMFD_FLAG = { mmap: 1, initShared: 2, write: 8 } as const;

/**
 * A file that holds guest memory. Offsets are bytes in the file, and must lie inside it (RangeError): memory does not grow.
 * Calls on a closed one throw `NativeError` with EBADF.
 */
export class MemoryFile {
  readonly #native: NativeMemoryFile;

  private constructor(native: NativeMemoryFile) {
    this.#native = native;
  }

  /** `sealable`: seals can be added to it later (fcntl(2), F_ADD_SEALS). */
  static createMemfd(
    name: string,
    sizeBytes: number,
    options: { readonly hugePages2MiB?: boolean; readonly sealable?: boolean } = {},
  ): MemoryFile {
    const { hugePages2MiB = false, sealable = false } = options;
    return MemoryFile.adopt(binding.MemoryFile.createMemfd(name, sizeBytes, hugePages2MiB, sealable));
  }

  /** A regular file, a file on tmpfs or hugetlbfs, or `/proc/PID/fd/N` of a memfd. Anything else: EINVAL. */
  static open(path: string, options: { readonly write: boolean }): MemoryFile {
    return MemoryFile.adopt(binding.MemoryFile.open(path, options.write));
  }

  /** Takes ownership of `fd`; where it throws, `fd` stays the caller's. */
  static adopt(fd: OwnedFd | HandedFd): MemoryFile {
    return new MemoryFile(new binding.MemoryFile(fd, null));
  }

  /** With a virtual machine of its own, which it keeps. `NativeError` names what is missing: /dev/kvm, guest_memfd, the flags. */
  static createGuestMemfd(sizeBytes: number, flags: number): MemoryFile {
    const [fd, vm] = binding.MemoryFile.createGuestMemfd(sizeBytes, flags);
    return new MemoryFile(new binding.MemoryFile(fd, vm));
  }

  /** -1 once closed. */
  get fd(): number {
    return this.#native.fd();
  }

  sizeBytes(): number {
    return this.#native.sizeBytes();
  }

  kind(): MemoryFileKind {
    return this.#native.kind() as MemoryFileKind;
  }

  /** Whether `write` can fill it, found without touching it: false for a guest_memfd without write(), hugetlbfs, or a file opened for reading. */
  writable(): boolean {
    return this.#native.writable();
  }

  /** Fills the page cache; maps nothing and wakes nobody. `present`: a guest_memfd that has the page. ESPIPE: one without write(). */
  write(source: Uint8Array, sourceOffset: number, length: number, fileOffset: number): Outcome {
    return toOutcome(this.#native.write(source, sourceOffset, length, fileOffset));
  }

  /**
   * Writes many pieces of `source`, in order: triples of sourceOffset, length, fileOffset. Pieces that follow each other in the
   * file go in one call. `bytes` of the outcome counts over all pieces.
   */
  writeRuns(source: Uint8Array, runs: Float64Array): Outcome {
    return toOutcome(this.#native.writeRuns(source, runs));
  }

  /** Holes read as zeros. `absent`: the file ends `bytes` after `fileOffset`. */
  read(into: Uint8Array, intoOffset: number, length: number, fileOffset: number): Outcome {
    return toOutcome(this.#native.read(into, intoOffset, length, fileOffset));
  }

  /** Pairs of first byte and length that are no holes. All of it where the file system cannot tell (guest_memfd). */
  dataRuns(offset: number, length: number): Float64Array {
    return this.#native.dataRuns(offset, length);
  }

  /** Frees the pages: they read as zeros, and mappings fault on them anew. */
  punch(offset: number, length: number): Outcome {
    return toOutcome(this.#native.punch(offset, length));
  }

  /** Like `write`, through a shared mapping made for it: for a guest_memfd without write(). Overwrites what is there. */
  store(source: Uint8Array, sourceOffset: number, length: number, fileOffset: number): Outcome {
    return toOutcome(this.#native.store(source, sourceOffset, length, fileOffset));
  }

  /**
   * The opposite of `store`: for a guest_memfd, which has no read(). Makes pages of the holes that it reads, so that of a guest_memfd
   * under a userfaultfd only pages may be read that are known to be there: an absent one would become a zero that no write() replaces.
   */
  load(into: Uint8Array, intoOffset: number, length: number, fileOffset: number): Outcome {
    return toOutcome(this.#native.load(into, intoOffset, length, fileOffset));
  }

  /**
   * Finds the pages that are holes, without reading any. Off this thread. None where the file system cannot tell.
   *
   * @returns pairs of first byte and length in bytes, ascending and not touching
   * @throws NativeError (rejection) EFAULT: the file became shorter
   */
  async findHoles(offset: number, length: number, pageSizeBytes: number): Promise<Float64Array> {
    return await this.#native.findHoles(offset, length, pageSizeBytes);
  }

  /**
   * Which of these pages, found by `findHoles`, are holes still. On this thread, about 0.3 us a hole: the time to say it of a guest that stands
   * still. A hole that has been cut up into very many may be told as fewer: what is not told is to be read.
   *
   * @throws NativeError EFAULT: the file became shorter
   */
  stillHoles(holes: Float64Array, pageSizeBytes: number): Float64Array {
    return this.#native.stillHoles(holes, pageSizeBytes);
  }

  /** Another descriptor of the same file (and of its virtual machine). */
  duplicate(): MemoryFile {
    const [fd, vm] = this.#native.duplicate();
    return new MemoryFile(new binding.MemoryFile(fd, vm));
  }

  /** Idempotent. A running search keeps a descriptor of its own and is not disturbed. */
  close(): void {
    this.#native.close();
  }
}
