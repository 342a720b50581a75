/** The native core: userfaultfd, memory files, other processes' memory, Unix sockets with descriptors, the page ledger. */
export {
  checksum,
  duplicateDescriptor,
  lockFile,
  lz4Compress,
  lz4Decompress,
  monotonicMs,
  sendNow,
  setThreadNice,
  zeroRuns,
} from './bytes.ts';
export { NativeError } from './errors.ts';
export { MAX_CLAIM_PAGES, PageLedger } from './ledger.ts';
export type { ClaimedRun } from './ledger.ts';
export { LoopSpin } from './loop-spin.ts';
export type { SpinState } from './loop-spin.ts';
export { GUEST_MEMFD_FLAG, MemoryFile } from './memory-file.ts';
export type { MemoryFileKind } from './memory-file.ts';
export { probe } from './probe.ts';
export { ProcessMemory } from './process-memory.ts';
export { Uffd } from './uffd.ts';
export type { PollOptions, RegisterModes, UffdOpenOptions } from './uffd.ts';
export { MAX_MESSAGE_FDS, UnixConnection, UnixListener } from './unix-socket.ts';
export { UserfaultBitmap } from './userfault-bitmap.ts';
export * from './types.ts';
