import { availableParallelism } from 'node:os';

/** Of which a lane that stays awake may take one, with the guest's own threads and the other lane still having theirs. */
const ENOUGH_CORES = 4;
/** The next fault of a guest that works through memory is there within that, and so is the answer on a network of one building. */
const AUTO_US = 200;

/**
 * How long a fault lane's loop stays awake after a fault, microseconds.
 * @param given by the operator; undefined: by the cores that this process may use (affinity and the CPU limit of its cgroup count)
 */
export function spinUsOf(given: number | undefined, cores = availableParallelism()): number {
  return given ?? (cores >= ENOUGH_CORES ? AUTO_US : 0);
}
