import { constants } from 'node:os';
import type { PackedOutcome } from './binding.ts';
import type { Outcome } from './types.ts';

/** In the order of `OutcomeKind` in src/outcome.h. */
const KINDS = ['done', 'present', 'again', 'unmapped', 'exited', 'no-memory', 'absent'] as const;
const REFUSED = KINDS.length;

const ERRNO_NAMES = new Map<number, string>();
for (const [name, number] of Object.entries(constants.errno)) {
  // ENOTSUP is EOPNOTSUPP and EWOULDBLOCK is EAGAIN on Linux: the names of the manual pages win.
  if (name !== 'ENOTSUP' && name !== 'EWOULDBLOCK') ERRNO_NAMES.set(number, name);
}

/** Undoes `encode` of src/outcome.cc: bytes * 2048 + errno * 8 + kind. */
export function toOutcome(packed: PackedOutcome): Outcome {
  const bytes = Math.floor(packed / 2048);
  const rest = packed % 2048;
  const index = rest % 8;
  if (index === REFUSED) {
    const errno = Math.floor(rest / 8);
    return { kind: 'refused', bytes, errno: ERRNO_NAMES.get(errno) ?? `errno ${errno}` };
  }
  const kind = KINDS[index];
  if (kind === undefined) throw new TypeError(`not an outcome: ${packed}`);
  return { kind, bytes };
}
