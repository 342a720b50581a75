/** The destination agent: wires adapters to sessions, serves, ends in good order. */
import { existsSync, mkdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { isFinal } from '@pagewake/core';
import { migrationService, type NewMigration } from './adapters/migration-service.ts';
import { destAgentConfig, type DestAgentConfig } from './config.ts';
import {
  aborted,
  ErrorReason,
  newSpanId,
  newTraceId,
  PagewakeError,
  runProgram,
  startServer,
  startTelemetry,
  UserError,
  type Life,
  type Telemetry,
} from './kit.ts';
import type { TraceIds } from './lanes/messages.ts';
import { SessionRegistry } from './session/registry.ts';
import { MigrationSession } from './session/session.ts';
import { recordFault, recordMigration } from './telemetry/spans.ts';

/** A Unix socket's path fits into 107 bytes (sockaddr_un). */
const MAX_SOCKET_PATH_BYTES = 107;

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
}

type SessionConfig = Pick<
  DestAgentConfig,
  | 'vmmSocketDir'
  | 'sourceTlsCa'
  | 'sourceTlsCert'
  | 'sourceTlsKey'
  | 'sourceServerName'
  | 'insecurePlaintext'
  | 'traceFaultRatio'
  | 'faultSpinUs'
  | 'faultWindowPages'
>;

/** The agent without its process: what the tests put behind a server of their own. */
export function destServices(config: SessionConfig, log: Life['log'], telemetry: Telemetry): DestServices {
  makeSocketDir(config.vmmSocketDir);
  const registry = new SessionRegistry();
  const service = migrationService({
    registry,
    newSession: (migration) => newSession(migration, registry, config, telemetry, log),
    onBug: (err) => log.error({ err }, 'a bug'),
  });
  return { services: [service], registry };
}

async function serve(config: DestAgentConfig, { log, stop }: Life): Promise<number> {
  const telemetry = await startTelemetry({ serviceName: 'pagewake-dest-agent', log });
  const { services, registry } = destServices(config, log, telemetry);
  const server = await startServer({ ...config, services });
  log.info({ address: server.address, security: server.security, tracing: telemetry.enabled }, 'listening');
  await aborted(stop);
  const active = registry.active();
  const leftBehind = active.filter(({ phase }) => phase !== 'preparing' && phase !== 'awaiting-vmm');
  for (const session of leftBehind) log.error({ migration: session.migrationId, phase: session.phase }, LEFT_BEHIND);
  await Promise.all(active.map((session) => session.leave()));
  await server.shutdown();
  await telemetry.shutdown();
  return leftBehind.length === 0 ? 0 : 1;
}

const LEFT_BEHIND =
  'stopped with a migration under way: its guest keeps what it has and waits for the rest; its VMM still holds the userfaultfd, so it will not read zeros';

function newSession(
  migration: NewMigration,
  registry: SessionRegistry,
  config: SessionConfig,
  telemetry: Telemetry,
  log: Life['log'],
): MigrationSession {
  const vmmSocket = join(config.vmmSocketDir, migration.vmmSocketName ?? `${migration.vmId}.sock`);
  if (Buffer.byteLength(vmmSocket) > MAX_SOCKET_PATH_BYTES)
    throw new PagewakeError(
      ErrorReason.INVALID_ARGUMENT,
      `${vmmSocket} is too long for a Unix socket; give a shorter vmm_socket_name or vm_id, or the agent a shorter --vmm-socket-dir`,
    );
  registry.checkSocket(vmmSocket);
  const trace = traceFor(migration, telemetry);
  const session: MigrationSession = new MigrationSession({
    ...migration,
    vmmSocket,
    credentials: {
      tlsCa: config.sourceTlsCa,
      tlsCert: config.sourceTlsCert,
      tlsKey: config.sourceTlsKey,
      serverName: config.sourceServerName,
      allowPlaintext: config.insecurePlaintext,
    },
    trace,
    traceRatio: config.traceFaultRatio,
    faults: { spinUs: config.faultSpinUs, windowPages: config.faultWindowPages },
    log: log.child({ vm: migration.vmId, migration: migration.migrationId }),
    onFaultsTraced: (records) => {
      for (const record of records) recordFault(telemetry, migration.vmId, record);
    },
  });
  session.on('change', () => {
    if (trace.sampled && isFinal(session.phase))
      recordMigration(telemetry, trace, migration.parent?.spanId, session.snapshot());
  });
  return session;
}

/** The migration's own span: under the orchestrator's where there is one, else the root of a new trace. */
function traceFor(migration: NewMigration, telemetry: Telemetry): TraceIds {
  const traceId = migration.parent?.traceId ?? newTraceId();
  const sampled =
    telemetry.enabled && (migration.parent ? migration.parent.sampled : telemetry.sampleRoot(traceId, 'migration'));
  return { traceId, spanId: newSpanId(), sampled };
}

/** Its parent must be there: Node's recursive mkdir never comes back where a file system refuses new folders (/proc). */
function makeUnlessThere(path: string): void {
  if (!existsSync(path)) mkdirSync(path, { mode: 0o700 });
}

/**
 * Whoever may connect may hand over any memory as a VM's, so the folder is the agent's user's alone. One that is there already is never
 * changed: it may be somebody else's.
 */
function makeSocketDir(path: string): void {
  try {
    makeUnlessThere(path);
    const { mode, uid } = statSync(path);
    const others = (mode & 0o022) !== 0;
    if (others || uid !== process.getuid?.())
      throw new UserError(
        `--vmm-socket-dir: ${path} ${others ? 'may be written by others' : 'belongs to another user'}; give a folder that is this user's alone (mode 0700)`,
        2,
      );
  } catch (error) {
    if (error instanceof UserError) throw error;
    const why = error instanceof Error ? error.message : String(error);
    throw new UserError(`--vmm-socket-dir: cannot use ${path}: ${why}`, 2, { cause: error });
  }
}
