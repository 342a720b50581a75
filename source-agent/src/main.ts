/** The source agent: wires adapters to the domain, runs until it is told to stop. */
import {
  aborted,
  runProgram,
  startServer,
  startTelemetry,
  toServiceError,
  type Life,
  type Telemetry,
} from '@pagewake/agent-kit';
import { implement, PageService, SourceService, type BoundService } from '@pagewake/proto';
import { nativeCodec } from './adapters/codec.ts';
import { pageHandlers } from './adapters/grpc/page-service.ts';
import { sourceHandlers } from './adapters/grpc/source-service.ts';
import { ServeTracer } from './adapters/serve-tracer.ts';
import { SOURCE_PROGRAM, type SourceConfig } from './config.ts';
import { VmRegistry } from './domain/registry.ts';

/** Arguments as after `pagewake serve-source`. Resolves to the exit code once the agent has stopped; never rejects. */
export function serveSource(argv: readonly string[]): Promise<number> {
  return runProgram(SOURCE_PROGRAM, argv, serve);
}

export interface SourceServices {
  readonly services: readonly BoundService[];
  /** Ends every session and closes every image. */
  close(): void;
}

/** The agent without its process: what the tests put behind a server of their own. */
export function sourceServices(
  config: Pick<SourceConfig, 'compression' | 'faultCompression'>,
  log: Life['log'],
  telemetry: Telemetry,
): SourceServices {
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

async function serve(config: SourceConfig, { log, stop }: Life): Promise<number> {
  const telemetry = await startTelemetry({ serviceName: 'pagewake-source-agent', log });
  const source = sourceServices(config, log, telemetry);
  const server = await startServer({ ...config, services: source.services });
  log.info({ address: server.address, security: server.security, tracing: telemetry.enabled }, 'listening');
  await aborted(stop);
  source.close();
  await server.shutdown();
  await telemetry.shutdown();
  log.info('stopped');
  return 0;
}
