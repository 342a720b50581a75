/**
 * The face of the native core: the shapes that cross the bridge. Same names and order on both sides, no rule and
 * no default in the bridge itself. Addresses and sizes are plain numbers of bytes: an x86-64 or arm64 user address is below
 * 2^53, and the native side refuses what is not a whole number in range.
 */

/**
 * What a call on memory came to. `bytes` is what was done before it stopped, also where it then failed.
 *
 * One native function maps errno to these (source of the rules: docs/kernel.md, errno by errno).
 */
export type Outcome =
  /** All of it. */
  | { readonly kind: 'done'; readonly bytes: number }
  /** EEXIST: at `bytes` stands a page that was there already. */
  | { readonly kind: 'present'; readonly bytes: number }
  /** EAGAIN: an event is pending, or a range stopped part-way: drain events, go on after `bytes`. */
  | { readonly kind: 'again'; readonly bytes: number }
  /** ENOENT: the mapping went away or changed. */
  | { readonly kind: 'unmapped'; readonly bytes: number }
  /** ESRCH (and ENOMEM of UNREGISTER): the process has exited. */
  | { readonly kind: 'exited'; readonly bytes: number }
  /** ENOMEM, ENOSPC: no memory now; the waiter stays blocked: back off, retry, raise an alarm. */
  | { readonly kind: 'no-memory'; readonly bytes: number }
  /** EFAULT: CONTINUE found no page in the cache, or a source address is not readable. */
  | { readonly kind: 'absent'; readonly bytes: number }
  /** ESPIPE, EOPNOTSUPP, EINVAL, EPERM, EBADF, …: not possible here; `errno` has the symbol, e.g. "ESPIPE". */
  | { readonly kind: 'refused'; readonly bytes: number; readonly errno: string };

export type OutcomeKind = Outcome['kind'];

/** Event types of `Uffd.poll` and `Uffd.drain`, as the kernel numbers them (linux/userfaultfd.h). */
export const UFFD_EVENT = { pagefault: 0x12, fork: 0x13, remap: 0x14, remove: 0x15, unmap: 0x16 } as const;
/** Flags of a page-fault event. */
export const UFFD_FAULT_FLAG = { write: 1, writeProtect: 2, minor: 4 } as const;
/** Feature bits of the userfaultfd handshake (linux/userfaultfd.h). */
export const UFFD_FEATURE = {
  eventFork: 1 << 1,
  eventRemap: 1 << 2,
  eventRemove: 1 << 3,
  missingHugetlbfs: 1 << 4,
  missingShmem: 1 << 5,
  eventUnmap: 1 << 6,
  sigbus: 1 << 7,
  threadId: 1 << 8,
  minorHugetlbfs: 1 << 9,
  minorShmem: 1 << 10,
  exactAddress: 1 << 11,
  poison: 1 << 14,
} as const;

/**
 * Events lie in a Float64Array, `UFFD_EVENT_FIELDS` numbers each: type, address (REMOVE, UNMAP: start), flags (REMOVE,
 * UNMAP: end), thread id (0 where the handshake did not ask for it), time read (ms, the clock of `performance.now()`
 * is NOT used: CLOCK_MONOTONIC in milliseconds with a fraction, the same clock as `monotonicMs()`).
 */
export const UFFD_EVENT_FIELDS = 5;
export const UFFD_EVENT_BATCH = 64;

/** Page states of the ledger. */
export const PAGE = { missing: 0, requested: 1, present: 2, zero: 3, removed: 4 } as const;

/** What `PageLedger.fault` found and did. */
export type FaultClaim =
  /** Was missing; is now requested with a waiter, and the caller must fetch it. */
  | 'claimed'
  /** Was requested by somebody else: a waiter is noted, who installs it wakes it. */
  | 'waiting'
  | 'present'
  | 'zero'
  | 'removed';

export interface LedgerCounts {
  readonly missing: number;
  readonly requested: number;
  readonly present: number;
  readonly zero: number;
  readonly removed: number;
}

export interface PeerCredentials {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

/** One row of the capability probe: found by behaviour, never by version. */
export interface Capability {
  readonly name: string;
  readonly available: boolean;
  /** What was done and what it answered, e.g. "write() to a guest_memfd: ESPIPE". */
  readonly detail: string;
}
