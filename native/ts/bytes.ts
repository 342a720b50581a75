import { binding } from './binding.ts';

/** The low 32 bits of XXH3-64 (xxHash) with seed `seedHigh * 2^32 + seedLow`. About 0.3 us for 4 KiB. */
export function checksum(bytes: Uint8Array, offset: number, length: number, seedHigh: number, seedLow: number): number {
  return binding.checksum(bytes, offset, length, seedHigh, seedLow);
}

/** Pages of `length` bytes at `offset` that hold only zeros: pairs of first page and count, ascending and not touching. */
export function zeroRuns(bytes: Uint8Array, offset: number, length: number, pageSizeBytes: number): Uint32Array {
  return binding.zeroRuns(bytes, offset, length, pageSizeBytes);
}

/**
 * Writes the length of the content (4 bytes, little-endian) and one LZ4 block to `into`.
 * @returns how much was written; 0 where it would take more than `into` has
 */
export function lz4Compress(bytes: Uint8Array, into: Uint8Array): number {
  return binding.lz4Compress(bytes, 0, bytes.length, into, 0, into.length);
}

/** @returns whether `bytes` is what `lz4Compress` writes, of content that fills `into` exactly. Where not, `into` holds nothing of use */
export function lz4Decompress(bytes: Uint8Array, into: Uint8Array): boolean {
  return binding.lz4Decompress(bytes, 0, bytes.length, into, 0, into.length);
}

/** CLOCK_MONOTONIC in milliseconds with a fraction: the same for every process of this machine, unlike `performance.now()`. */
export function monotonicMs(): number {
  return binding.monotonicMs();
}

/**
 * Hands bytes to the kernel for a socket that is connected, without waiting.
 * @returns how many it took; 0: none, because the peer is behind or the socket is of no use
 */
export function sendNow(fd: number, bytes: Uint8Array): number {
  return binding.sendNow(fd, bytes);
}

/** Niceness (-20 to 19) of the calling thread alone. Lower than it is needs CAP_SYS_NICE: EACCES. */
export function setThreadNice(nice: number): void {
  binding.setThreadNice(nice);
}

/** Another descriptor of the same open file, closed on exec; the caller's to close. EBADF, EMFILE. */
export function duplicateDescriptor(fd: number): number {
  return binding.duplicateDescriptor(fd);
}

/**
 * Takes the lock on a file, which is made if it is missing. Held until the descriptor is closed, at the latest when the last thread of this process has
 * left the kernel. EAGAIN: another process has it.
 */
export function lockFile(path: string): number {
  return binding.lockFile(path);
}
