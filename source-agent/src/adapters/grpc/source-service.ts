/** The orchestrator's side: which VM's memory may be served, and when. */
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import type { Logger } from '@pagewake/agent-kit';
import type { Handlers, SourceService } from '@pagewake/proto';
import type { VmRegistry } from '../../domain/registry.ts';
import type { FileWatchers } from '../file-watchers.ts';
import type { VmRecords } from '../vm-records.ts';
import { openImage } from './memory.ts';
import { regionMessages, STATE } from './wire.ts';

export interface SourceContext {
  readonly registry: VmRegistry;
  /** Undefined: nothing of a VM outlives the agent. */
  readonly records: VmRecords | undefined;
  readonly watchers: FileWatchers;
  readonly log: Logger;
}

export function sourceHandlers({ registry, records, watchers, log }: SourceContext): Handlers<typeof SourceService> {
  return {
    async register({ vmId, token, memory, unlessRegistered }) {
      registry.checkRegister(vmId, token, unlessRegistered);
      const vm = registry.register(vmId, token, await openImage(memory, watchers), unlessRegistered);
      if (memory !== undefined) records?.registered(vm, memory);
      log.info(
        { vmId, generation: vm.generation, regions: vm.regions.length, memory: memory?.kind.case },
        'registered',
      );
      return { generation: vm.generation };
    },

    setPaused({ vmId, generation, paused }) {
      const result = registry.setPaused(vmId, generation, paused);
      if (result === undefined) {
        log.info({ vmId, generation }, 'runs again');
        return {};
      }
      const { zeros, scanMs } = result;
      log.info({ vmId, generation, dataPages: zeros.dataPages, zeroPages: zeros.zeroPages, scanMs }, 'paused');
      return { dataPages: BigInt(zeros.dataPages), zeroPages: BigInt(zeros.zeroPages), scanMs };
    },

    list() {
      return {
        vms: registry.list().map((vm) => ({
          vmId: vm.vmId,
          generation: vm.generation,
          state: STATE[vm.state],
          regions: regionMessages(vm.regions),
          destinationId: vm.session?.destinationId ?? '',
          pagesServed: BigInt(vm.pagesServed),
          payloadBytes: BigInt(vm.payloadBytes),
          registeredAt: timestampFromMs(Math.floor(vm.registeredAtMs)),
        })),
      };
    },

    release({ vmId, generation, force }) {
      registry.release(vmId, generation, force);
      log.info({ vmId, generation, force }, 'released');
      return {};
    },
  };
}
