/** What is done to a guest that will never be whole. */
import { DIALECTS } from '@pagewake/core';
import type { Logger } from '../kit.ts';
import type { AdmittedVm } from './admission.ts';

/**
 * Makes sure that nobody waits for what will never come: poisons it, or, where that does not reach who waits, kills the VMM. A guest that waits for ever
 * is worse than one that is known to be dead.
 * @param connected the VMM's channel is open, so its pid is still its own
 */
export async function poisonOrKill(vm: AdmittedVm, connected: boolean, log: Logger): Promise<void> {
  const { pages, refused } = await vm.poison();
  if (refused === undefined && pages > 0)
    log.error({ pages }, 'pages that never came are poisoned: touching one ends the guest');
  const { pid, offer } = vm.received;
  // A vCPU that exits on a set bit asks, and nobody tells its VMM that there is nobody to answer.
  const asksForEver = offer.descriptors.includes('bitmap') && !DIALECTS[offer.dialect].isTold;
  if (refused === undefined && !asksForEver) return;
  const killed = pid > 0 && connected && process.kill(pid, 'SIGKILL');
  const what = killed
    ? 'so its VMM was killed'
    : 'and its VMM cannot be seen from here: end it by hand, its guest waits for ever';
  const why =
    refused === undefined
      ? 'the VMM cannot be told that its stage-2 faults will not be answered'
      : 'the kernel cannot poison what never came (UFFDIO_POISON needs Linux 6.6)';
  log.error({ pid, refused }, `${why}, ${what}`);
}
