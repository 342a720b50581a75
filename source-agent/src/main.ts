/** The source agent: wires adapters to the domain, runs until it is told to stop. */
import {
  aborted,
  parseAddress,
  runProgram,
  startServer,
  startTelemetry,
  StateFolder,
  type Life,
} from '@pagewake/agent-kit';
import { sourceServices } from './adapters/grpc/services.ts';
import { lock } from './adapters/lock.ts';
import { SOURCE_PROGRAM, type SourceConfig } from './config.ts';

/** Arguments as after `pagewake serve-source`. Resolves to the exit code once the agent has stopped; never rejects. */
export function serveSource(argv: readonly string[]): Promise<number> {
  return runProgram(SOURCE_PROGRAM, argv, serve);
}

async function serve(config: SourceConfig, { log, stop }: Life): Promise<number> {
  const telemetry = await startTelemetry({ serviceName: 'pagewake-source-agent', log });
  const folder =
    config.stateDir === undefined ? undefined : new StateFolder(config.stateDir, { option: '--state-dir', lock, log });
  const source = sourceServices(config, log, telemetry, folder);
  await source.restore();
  const server = await startServer({ ...config, services: source.services });
  const { host } = parseAddress(server.address, '--listen');
  await source.listenForFaults({ ...config, host, port: config.faultPort });
  await source.listenForBulk();
  log.info({ address: server.address, security: server.security, tracing: telemetry.enabled }, 'listening');
  await aborted(stop);
  await source.close();
  await server.shutdown();
  await telemetry.shutdown();
  log.info('stopped');
  return 0;
}
