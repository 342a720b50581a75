import {
  AMONG_SEVERAL_US,
  spinUsOf,
  toServiceError,
  type BareServer,
  type Logger,
  type StateFolder,
  type Telemetry,
} from '@pagewake/agent-kit';
import { LoopSpin } from '@pagewake/native';
import { implement, PageService, SourceService, type BoundService } from '@pagewake/proto';
import { VmRegistry } from '../../domain/registry.ts';
import { nativeCodec } from '../codec.ts';
import { KEPT_SLABS, SLAB_BYTES, type FaultConnectionContext } from '../faults/connection.ts';
import { openFaultPort, type FaultPortOptions } from '../faults/port.ts';
import { rehearseFaults } from '../faults/rehearsal.ts';
import { SlabPool } from '../faults/slab.ts';
import { FileWatchers } from '../file-watchers.ts';
import { ServeTracer } from '../serve-tracer.ts';
import { VmRecords } from '../vm-records.ts';
import { BulkHost, type BulkOptions } from '../bulk/host.ts';
import { openImage } from './memory.ts';
import { frameMaker, pageHandlers } from './page-service.ts';
import { sourceHandlers } from './source-service.ts';

export interface ServingOptions extends BulkOptions {
  /** LZ4 on the demand lane. */
  readonly faultCompression: boolean;
  /** How long the loop stays awake after a fault, microseconds. Default: by the cores. */
  readonly faultSpinUs?: number | undefined;
}

export interface SourceServices {
  readonly services: readonly BoundService[];
  /** Takes bare connections of the demand lane on such a port, and has Open tell of it. @throws UserError */
  listenForFaults(options: FaultPortOptions): Promise<number>;
  /** Gives bulk a port and a thread of its own, and has Open tell of it. Rejects with UserError. */
  listenForBulk(): Promise<number>;
  /** Takes up what the agent before this one served; to be awaited before anybody is let in. */
  restore(): Promise<void>;
  /** Ends every session and closes every image. What is kept in the state folder stays. */
  close(): Promise<void>;
}

/** The agent's services over a registry of their own; who starts a server puts them behind it. Without a state folder nothing outlives the agent. */
export function sourceServices(
  config: ServingOptions,
  log: Logger,
  telemetry: Telemetry,
  folder?: StateFolder,
): SourceServices {
  const onBug = (error: unknown): void => log.error({ err: error }, 'internal error');
  const toStatus = (error: unknown) => toServiceError(error, onBug);
  const records = folder && new VmRecords(folder, log);
  const registry = new VmRegistry(undefined, records);
  const watchers = new FileWatchers((about, text) => log.warn(about, text));
  const tracer = new ServeTracer(telemetry);
  const { compression, faultCompression } = config;
  const spin = new LoopSpin(spinUsOf(config.faultSpinUs), AMONG_SEVERAL_US);
  let faults: BareServer | undefined;
  const connections: FaultConnectionContext = {
    registry,
    makerOf: (vm) => frameMaker(vm, nativeCodec),
    tracer,
    slabs: new SlabPool(SLAB_BYTES, KEPT_SLABS),
    compress: faultCompression,
    spin,
    onBug,
  };
  let bulk: BulkHost | undefined;
  return {
    services: [
      implement(SourceService, sourceHandlers({ registry, records, watchers, log }), toStatus),
      implement(
        PageService,
        pageHandlers({
          registry,
          codec: nativeCodec,
          tracer,
          compression,
          faultCompression,
          faultPort: () => faults?.port ?? 0,
          bulkPort: () => bulk?.port ?? 0,
          log,
          onBug,
        }),
        toStatus,
      ),
    ],
    restore: async () => records?.restore(registry, (memory) => openImage(memory, watchers)),
    async listenForFaults(options) {
      rehearseFaults(connections);
      faults = await openFaultPort(options, connections);
      return faults.port;
    },
    async listenForBulk() {
      bulk = await BulkHost.start(config, registry, log);
      return bulk.port;
    },
    async close() {
      registry.close();
      tracer.flush();
      spin.close();
      await Promise.all([faults?.close(), bulk?.stop()]);
    },
  };
}
