import { binding } from './binding.ts';
import type { NativeProcessMemory } from './binding.ts';
import { toOutcome } from './outcome.ts';
import type { Outcome } from './types.ts';

/**
 * Another process's memory, by its addresses. Bound to the process and not to its number: once it is gone every read says
 * `exited`. Calls on a closed one throw `NativeError` with EBADF.
 */
export class ProcessMemory {
  readonly #native: NativeProcessMemory;

  private constructor(native: NativeProcessMemory) {
    this.#native = native;
  }

  /** ESRCH: there is no such process. EPERM: it may not be read (as for ptrace). */
  static open(pid: number): ProcessMemory {
    return new ProcessMemory(new binding.ProcessMemory(pid));
  }

  /** `absent`: not mapped, or not readable, `bytes` after `address`. */
  read(into: Uint8Array, intoOffset: number, length: number, address: number): Outcome {
    return toOutcome(this.#native.read(into, intoOffset, length, address));
  }

  /**
   * Finds the pages that were never populated, from /proc and without reading any, so that the target's memory does not grow. Off this thread.
   *
   * @returns pairs of address and length in bytes, ascending and not touching
   * @throws NativeError (rejection) EBUSY: registered with a userfaultfd, so not whole; ESRCH: exited
   */
  async findHoles(address: number, length: number, pageSizeBytes: number): Promise<Float64Array> {
    return await this.#native.findHoles(address, length, pageSizeBytes);
  }

  /**
   * Which of these pages, found by `findHoles`, are unpopulated still. On this thread, and short: it asks neither for userfaultfds nor anything
   * else that walks the whole process. Throws ESRCH.
   */
  stillHoles(holes: Float64Array, pageSizeBytes: number): Float64Array {
    return this.#native.stillHoles(holes, pageSizeBytes);
  }

  /** False once it has exited, even while it is a zombie. */
  alive(): boolean {
    return this.#native.alive();
  }

  /** Idempotent. */
  close(): void {
    this.#native.close();
  }
}
