/** What is done to a guest that will never be whole. */
import type { Logger } from '../kit.ts';
import type { AdmittedVm } from './admission.ts';

/**
 * Makes sure that nobody waits for what will never come: poisons it, or, where the kernel cannot, kills the VMM. A guest that waits for ever is worse than
 * one that is known to be dead.
 * @param connected the VMM's channel is open, so its pid is still its own
 */
export async function poisonOrKill(vm: AdmittedVm, connected: boolean, log: Logger): Promise<void> {
  const { pages, refused } = await vm.poison();
  if (refused === undefined) {
    if (pages > 0) log.error({ pages }, 'pages that never came are poisoned: touching one ends the guest');
    return;
  }
  const { pid } = vm.received;
  const killed = pid > 0 && connected && process.kill(pid, 'SIGKILL');
  const what = killed
    ? 'so its VMM was killed'
    : 'and its VMM cannot be seen from here: end it by hand, its guest waits for ever';
  log.error({ pid, refused }, `the kernel cannot poison what never came (UFFDIO_POISON needs Linux 6.6), ${what}`);
}
