import { binding } from './binding.ts';
import type { HandedFd, NativeUserfaultBitmap, OwnedFd } from './binding.ts';

/** Hands the native object to another class of this folder. */
export let nativeOf: (bitmap: UserfaultBitmap) => NativeUserfaultBitmap;

/**
 * A KVM userfault bitmap: bit n (of byte n / 8, from the lowest on) is page n of a memory file, and set means that a stage-2 fault exits to the VMM. The
 * VMM sets them all before its vCPUs run; from then on bits are only cleared. Clearing is atomic among threads and processes, and has release order: who
 * sees the bit clear sees the page.
 *
 * Clear after the kernel said that the page is there, and before anybody is answered or woken. Calls on a closed one throw `NativeError` with EBADF.
 */
export class UserfaultBitmap {
  readonly #native: NativeUserfaultBitmap;

  static {
    nativeOf = (bitmap) => bitmap.#native;
  }

  private constructor(native: NativeUserfaultBitmap) {
    this.#native = native;
  }

  /**
   * Maps the bitmap of a memory file of `pages` pages, then closes `fd`; where it throws, `fd` stays the caller's. A file that could be made shorter is
   * sealed against it (F_SEAL_SHRINK), for everybody who has it.
   *
   * @throws NativeError EINVAL: it is no memfd of ordinary pages, or shorter than a bit a page, in words of 8 bytes. EPERM: it can be sealed no more and
   *   was not sealed against shrinking, or cannot be written
   */
  static adopt(fd: OwnedFd | HandedFd, pages: number): UserfaultBitmap {
    return new UserfaultBitmap(new binding.UserfaultBitmap(fd, pages));
  }

  get pageCount(): number {
    return this.#native.pageCount();
  }

  clear(first: number, count: number): void {
    this.#native.clear(first, count);
  }

  isSet(page: number): boolean {
    return this.#native.isSet(page);
  }

  countSet(): number {
    return this.#native.countSet();
  }

  /** Idempotent. */
  close(): void {
    this.#native.close();
  }
}
