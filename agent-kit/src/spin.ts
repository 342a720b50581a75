import { availableParallelism } from 'node:os';

/** Of which a lane that stays awake may take one, with the guest's own threads and the other lane still having theirs. */
const ENOUGH_CORES = 4;
/** The next fault of a guest that works through memory is there within that, and so is the answer on a network of one building. */
const AUTO_US = 200;

/**
 * So many faults outstanding at once are worth a lane that stays awake on two cores too, whatever the operator says of single ones: the threads that
 * would want its core are mostly those that wait, and to be woken for each answer costs more than to look out for it (docs/performance.md).
 */
export const SEVERAL_FAULTS = 4;
/** From the last sign of them on, microseconds. Longer than a round trip on busy cores: a wait that ends asleep after all has gained nothing. */
export const AMONG_SEVERAL_US = 300;

/**
 * How long a fault lane's loop stays awake after a fault, microseconds.
 * @param given by the operator; undefined: by the cores that this process may use (affinity and the CPU limit of its cgroup count)
 */
export function spinUsOf(given: number | undefined, cores = availableParallelism()): number {
  return given ?? (cores >= ENOUGH_CORES ? AUTO_US : 0);
}
