/** What this machine's kernel lets a destination do with each kind of guest memory, from the rows that the probe found. */
import type { Mode, Tier } from '@pagewake/core';

/** A row of the probe, as far as it matters here. */
export interface Seen {
  readonly name: string;
  readonly available: boolean;
}

export interface TierHere {
  readonly tier: Tier;
  readonly available: boolean;
  /** What a VM of this tier gets when it asks for nothing; `none` where it cannot be served at all. */
  readonly mode: Mode | 'none';
  /** Rows of the probe that say no: needed for the tier or, where it is available all the same, for post-copy. */
  readonly missing: readonly string[];
}

interface Needs {
  readonly tier: Tier;
  readonly rows: readonly string[];
  readonly mode: Mode;
  /** Where a row says no. */
  readonly otherwise: 'eager' | 'none';
}

/** A vCPU's faults reach a userfaultfd only if it sees those of the kernel; so do KVM's own accesses, which no bitmap stops. */
const KERNEL_FAULTS = 'faults of the kernel (stage 2)';
const MISSING = 'MISSING on memfd';
const GUEST_MEMFD = 'guest_memfd mmap';

/** Best first. */
const NEEDS: readonly Needs[] = [
  {
    tier: 'guest-memfd-full',
    rows: [
      GUEST_MEMFD,
      'userfaultfd missing and minor on guest_memfd',
      'write() to guest_memfd',
      'KVM userfault on guest_memfd',
      KERNEL_FAULTS,
    ],
    mode: 'post-copy',
    otherwise: 'none',
  },
  { tier: 'guest-memfd-eager', rows: [GUEST_MEMFD], mode: 'eager', otherwise: 'none' },
  {
    tier: 'memfd-userfault',
    rows: ['KVM userfault on memfd', MISSING, KERNEL_FAULTS],
    mode: 'post-copy',
    otherwise: 'none',
  },
  { tier: 'memfd', rows: [MISSING, KERNEL_FAULTS], mode: 'post-copy', otherwise: 'eager' },
  // Without a userfaultfd there is no way into another process's own memory.
  { tier: 'anonymous', rows: [KERNEL_FAULTS], mode: 'post-copy', otherwise: 'none' },
];

export function tiersHere(seen: readonly Seen[]): readonly TierHere[] {
  const here = new Set(seen.filter(({ available }) => available).map(({ name }) => name));
  return NEEDS.map(({ tier, rows, mode, otherwise }) => {
    const missing = rows.filter((row) => !here.has(row));
    const reached = missing.length === 0 ? mode : otherwise;
    return { tier, available: reached !== 'none', mode: reached, missing };
  });
}
