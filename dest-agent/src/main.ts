/** The destination agent: wires adapters to sessions, serves, ends in good order. */
import { join } from 'node:path';
import { holdLock } from './adapters/lock.ts';
import { migrationService } from './adapters/migration-service.ts';
import { destAgentConfig, type DestAgentConfig } from './config.ts';
import type { Life, Telemetry } from './kit.ts';
import { aborted, requireOwnFolder, runProgram, startServer, startTelemetry, StateFolder } from './main-kit.ts';
import { SessionFactory, type SessionConfig } from './session/factory.ts';
import { SessionRegistry } from './session/registry.ts';

/** Runs the agent until it is stopped. @returns the exit code */
export function serveDest(argv: readonly string[]): Promise<number> {
  const spec = {
    name: 'pagewake serve-dest',
    summary: 'The destination agent: owns a VM’s userfaultfd and memory, and fetches what is missing.',
    schema: destAgentConfig,
    examples: ['pagewake serve-dest --listen 127.0.0.1:7702 --vmm-socket-dir /run/pagewake'],
  };
  return runProgram(spec, argv, serve);
}

export interface DestServices {
  readonly services: readonly ReturnType<typeof migrationService>[];
  readonly registry: SessionRegistry;
  /** Gives the state folder to the next agent, once every session has left. */
  readonly close: () => void;
}

/** The agent without its process: what the tests put behind a server of their own. Takes up what the agent before it left. */
export async function destServices(
  config: SessionConfig,
  log: Life['log'],
  telemetry: Telemetry,
): Promise<DestServices> {
  requireOwnFolder(config.vmmSocketDir, '--vmm-socket-dir');
  const stateDir = config.stateDir ?? join(config.vmmSocketDir, '.state');
  const folder = new StateFolder(stateDir, { option: '--state-dir', lock: holdLock, log });
  const factory = new SessionFactory(config, folder, telemetry, log);
  const registry = new SessionRegistry((migrationId) => folder.remove(migrationId));
  for (const session of factory.adopt()) registry.add(session);
  // What stands in the way of one is its own end, and in its log.
  await Promise.allSettled(registry.active().map((session) => session.prepare()));
  const service = migrationService({
    registry,
    newSession: (migration) => {
      registry.checkSocket(factory.socketPath(migration));
      return factory.create(migration);
    },
    onBug: (err) => log.error({ err }, 'a bug'),
  });
  return { services: [service], registry, close: () => folder.close() };
}

async function serve(config: DestAgentConfig, { log, stop }: Life): Promise<number> {
  const telemetry = await startTelemetry({ serviceName: 'pagewake-dest-agent', log });
  const { services, registry } = await destServices(config, log, telemetry);
  const server = await startServer({ ...config, services });
  log.info({ address: server.address, security: server.security, tracing: telemetry.enabled }, 'listening');
  await aborted(stop);
  const active = registry.active();
  const leftBehind = active.filter(({ phase }) => phase !== 'preparing' && phase !== 'awaiting-vmm');
  for (const session of leftBehind) log.error({ migration: session.migrationId, phase: session.phase }, LEFT_BEHIND);
  await registry.leave();
  await server.shutdown();
  await telemetry.shutdown();
  return leftBehind.length === 0 ? 0 : 1;
}

const LEFT_BEHIND =
  'stopped with a migration under way: its guest keeps what it has and waits for the rest, and reads no zeros; an agent that is started on the same state folder goes on, if its VMM hands the memory over again';
