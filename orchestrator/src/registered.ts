/** What a source agent knows of a VM already: to register it anew would fence whoever is moving it. */
import { ErrorReason, PagewakeError } from '@pagewake/agent-kit';
import { SourceVmState } from '@pagewake/proto';
import type { SourceAgent } from './agents.ts';
import type { SourceMemory } from './drivers/driver.ts';

/** The source agent holds the VM for somebody else's migration, or for one that nobody sees to any more. */
export class AlreadyMigrating extends PagewakeError {}

export interface Registration {
  readonly vmId: string;
  readonly memory: SourceMemory['memory'];
  readonly token: Uint8Array;
}

/** Gives the VM's generation. Throws AlreadyMigrating, also to all but one of several that ask in the same moment, and what the agent answers. */
export async function registerVm(source: SourceAgent, vm: Registration, signal: AbortSignal): Promise<number> {
  try {
    const { generation } = await source.call((c, o) => c.register({ ...vm, unlessRegistered: true }, o), { signal });
    return generation;
  } catch (error) {
    if (!(error instanceof PagewakeError) || error.reason !== ErrorReason.MIGRATION_EXISTS) throw error;
    const { state = 'unknown', generation = 'unknown' } = error.metadata;
    throw alreadyMigrating(source, vm.vmId, state, generation);
  }
}

/** Throws AlreadyMigrating, and what the agent answers. */
export async function refuseIfMigrating(source: SourceAgent, vmId: string, signal: AbortSignal): Promise<void> {
  const { vms } = await source.call((c, o) => c.list({}, o), { signal });
  const vm = vms.find((known) => known.vmId === vmId);
  if (vm === undefined || vm.state === SourceVmState.COMPLETED) return;
  const state = (SourceVmState[vm.state] ?? 'unknown').toLowerCase();
  throw alreadyMigrating(source, vmId, state, String(vm.generation));
}

function alreadyMigrating(source: SourceAgent, vmId: string, state: string, generation: string): AlreadyMigrating {
  const force = state === 'serving' ? ' --force' : '';
  return new AlreadyMigrating(
    ErrorReason.MIGRATION_EXISTS,
    `VM ${vmId} is being migrated already: the source agent at ${source.address} has it as ${state}, generation ${generation}; ` +
      `follow that migration with pagewake watch, or, if nobody migrates it any more, ` +
      `forget it with: pagewake release ${vmId} --source ${source.address}${force}`,
    { vm_id: vmId, state, generation },
  );
}
