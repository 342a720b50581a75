/** What a source agent knows of a VM before it is registered: to register it again would fence whoever is moving it. */
import { ErrorReason, PagewakeError } from '@pagewake/agent-kit';
import { SourceVmState } from '@pagewake/proto';
import type { SourceAgent } from './agents.ts';

/** The source agent holds the VM for somebody else's migration, or for one that nobody sees to any more. */
export class AlreadyMigrating extends PagewakeError {}

/** Throws AlreadyMigrating, and what the agent answers. Two that ask in the same moment are not told apart. */
export async function refuseIfMigrating(source: SourceAgent, vmId: string, signal: AbortSignal): Promise<void> {
  const { vms } = await source.call((c, o) => c.list({}, o), { signal });
  const vm = vms.find((known) => known.vmId === vmId);
  if (vm === undefined || vm.state === SourceVmState.COMPLETED) return;
  const state = (SourceVmState[vm.state] ?? 'unknown').toLowerCase();
  const generation = String(vm.generation);
  const force = vm.state === SourceVmState.SERVING ? ' --force' : '';
  throw new AlreadyMigrating(
    ErrorReason.MIGRATION_EXISTS,
    `VM ${vmId} is being migrated already: the source agent at ${source.address} has it as ${state}, generation ${generation}; ` +
      `follow that migration with pagewake watch, or, if nobody migrates it any more, ` +
      `forget it with: pagewake release ${vmId} --source ${source.address}${force}`,
    { vm_id: vmId, state, generation },
  );
}
