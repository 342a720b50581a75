/** The source agent: wires adapters to the domain, runs until it is told to stop. */
import {
  aborted,
  parseAddress,
  runProgram,
  startServer,
  startTelemetry,
  StateFolder,
  UserError,
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
  const { lanes, faultPort, bulkPort } = config;
  if (lanes === 'grpc' && faultPort + bulkPort > 0)
    throw new UserError('--fault-port and --bulk-port are of --lanes direct: with --lanes grpc there is one port', 2);
  const telemetry = await startTelemetry({ serviceName: 'pagewake-source-agent', log });
  const folder =
    config.stateDir === undefined ? undefined : new StateFolder(config.stateDir, { option: '--state-dir', lock, log });
  const source = sourceServices(config, log, telemetry, folder);
  await source.restore();
  const server = await startServer({ ...config, services: source.services });
  try {
    const { host } = parseAddress(server.address, '--listen');
    const ports = lanes === 'direct' && {
      faultPort: await source.listenForFaults({ ...config, host, port: faultPort }),
      bulkPort: await source.listenForBulk(),
    };
    const { address, security } = server;
    log.info({ address, ...ports, security, tracing: telemetry.enabled }, 'listening');
    await aborted(stop);
  } finally {
    // Also where a lane's port cannot be had: a server that is left would keep the process.
    await source.close();
    await server.shutdown();
    await telemetry.shutdown();
  }
  log.info('stopped');
  return 0;
}
