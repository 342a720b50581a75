/**
 * The policy: which call resolves a fault, and which one installs what prefetch brought. One table; the facts behind each row
 * are in docs/kernel.md.
 */

/** A call that makes a page be there, or lets its waiter go on. */
export type InstallCall = ContentCall | 'continue' | 'wake';
/** Those of them that bring content. */
export type ContentCall = 'copy' | 'zeropage' | 'write' | 'store';

/**
 * Where a fault was seen: `user-space`, by userfaultfd from any thread that is not known to be a vCPU; `stage2-trap`, by
 * userfaultfd from a vCPU thread, because KVM resolves it through the memslot's host mapping; `stage2-exit`, by a request on
 * the VMM channel after a KVM exit that no userfaultfd saw.
 */
export type FaultOrigin = 'user-space' | 'stage2-trap' | 'stage2-exit';

export interface MemoryTraits {
  /** `none`: anonymous memory, nothing came over but the userfaultfd. */
  readonly file: 'none' | 'shared' | 'guest-memfd';
  /** The VMM registered its ranges for minor faults too. */
  readonly minor: boolean;
  /** Pages of 2 MiB: the kernel has no ZEROPAGE for hugetlbfs, nor can its files be written. */
  readonly huge: boolean;
  /**
   * A write() fills just the pages it names. False where the kernel would put a larger folio into the file and so make
   * neighbours look present and zero (shmem with huge pages always on).
   */
  readonly exactWrite: boolean;
  /** The file takes a write(): a guest_memfd does on some kernels alone, a file on hugetlbfs never. */
  readonly writable: boolean;
  /** A bitmap came over: vCPUs exit on pages whose bit is set, and no userfaultfd hears of them. */
  readonly bitmap: boolean;
}

const canWrite = (memory: MemoryTraits): boolean =>
  memory.file !== 'none' && memory.writable && !memory.huge && memory.exactWrite;

/**
 * What lets a waiter of this page go on once a write() has filled the file. Where MINOR is registered a thread that is merely woken comes back with a
 * second event; a vCPU that exited waits for an answer and nothing else.
 */
export function callAfterWrite(origin: FaultOrigin, memory: MemoryTraits): 'continue' | 'write' {
  return memory.minor && origin !== 'stage2-exit' ? 'continue' : 'write';
}

/** The call for a missing page whose content is data from the source. */
export function callForData(origin: FaultOrigin, memory: MemoryTraits): ContentCall {
  switch (origin) {
    case 'user-space':
      // The faulting thread needs the page in its page table: COPY fills the cache, sets the entry and wakes, in one.
      return 'copy';
    case 'stage2-trap':
      // KVM maps the page itself when it comes back, so filling the cache is enough and cheaper, unless MINOR is
      // registered: then the way back would be a second event.
      return canWrite(memory) && !memory.minor ? 'write' : 'copy';
    case 'stage2-exit':
      return canWrite(memory) ? 'write' : 'copy';
  }
}

/** The call for a missing page that is known to hold only zeros. */
export function callForZero(origin: FaultOrigin, memory: MemoryTraits): ContentCall {
  if (origin === 'stage2-exit') return callForData(origin, memory);
  return memory.huge ? 'copy' : 'zeropage';
}

/** The call that installs a run that nobody waits for. */
export function callForPrefetch(memory: MemoryTraits, trapped: boolean): ContentCall {
  // What cannot be written can be stored to through a mapping.
  if (!trapped) return memory.writable && !memory.huge ? 'write' : 'store';
  return canWrite(memory) ? 'write' : 'copy';
}
