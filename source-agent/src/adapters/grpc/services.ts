import { toServiceError, type Logger, type Telemetry } from '@pagewake/agent-kit';
import { implement, PageService, SourceService, type BoundService } from '@pagewake/proto';
import { VmRegistry } from '../../domain/registry.ts';
import { nativeCodec } from '../codec.ts';
import { ServeTracer } from '../serve-tracer.ts';
import type { Compression } from './bulk-lane.ts';
import { pageHandlers } from './page-service.ts';
import { sourceHandlers } from './source-service.ts';

export interface ServingOptions {
  /** LZ4 on the bulk lane. */
  readonly compression: Compression;
  /** LZ4 on the demand lane. */
  readonly faultCompression: boolean;
}

export interface SourceServices {
  readonly services: readonly BoundService[];
  /** Ends every session and closes every image. */
  close(): void;
}

/** The agent's services over a registry of their own; who starts a server puts them behind it. */
export function sourceServices(config: ServingOptions, log: Logger, telemetry: Telemetry): SourceServices {
  const onBug = (error: unknown): void => log.error({ err: error }, 'internal error');
  const toStatus = (error: unknown) => toServiceError(error, onBug);
  const registry = new VmRegistry();
  const tracer = new ServeTracer(telemetry);
  const { compression, faultCompression } = config;
  return {
    services: [
      implement(SourceService, sourceHandlers(registry, log), toStatus),
      implement(
        PageService,
        pageHandlers({ registry, codec: nativeCodec, tracer, compression, faultCompression, log, onBug }),
        toStatus,
      ),
    ],
    close() {
      registry.close();
      tracer.flush();
    },
  };
}
