import { binding } from './binding.ts';
import type { Capability } from './types.ts';

/**
 * What this machine can do, one row a capability, each found by doing it on memory of its own. Takes a few milliseconds, throws
 * nothing and leaves nothing behind.
 */
export function probe(): Capability[] {
  return binding.probe();
}
