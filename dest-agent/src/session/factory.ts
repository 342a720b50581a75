/** Makes sessions: of what an orchestrator asks for, and of what the agent before this one left. */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { isFinal } from '@pagewake/core';
import type { NewMigration } from '../adapters/migration-service.ts';
import type { DestAgentConfig } from '../config.ts';
import {
  ErrorReason,
  messageOf,
  newSpanId,
  newTraceId,
  PagewakeError,
  spinUsOf,
  type Logger,
  type StateFolder,
  type Telemetry,
} from '../kit.ts';
import { recordFault, recordMigration } from '../telemetry/spans.ts';
import { Continuity } from './continuity.ts';
import { EndedMigration } from './ended.ts';
import { migrationRecord, RecordKeeper, type MigrationRecord } from './record.ts';
import type { KnownMigration } from './registry.ts';
import { MigrationSession } from './session.ts';

/** A Unix socket's path fits into 107 bytes (sockaddr_un). */
const MAX_SOCKET_PATH_BYTES = 107;

export type SessionConfig = Pick<
  DestAgentConfig,
  | 'vmmSocketDir'
  | 'stateDir'
  | 'sourceTlsCa'
  | 'sourceTlsCert'
  | 'sourceTlsKey'
  | 'sourceServerName'
  | 'insecurePlaintext'
  | 'traceFaultRatio'
  | 'faultSpinUs'
  | 'faultWindowPages'
>;

export class SessionFactory {
  readonly #config: SessionConfig;
  readonly #folder: StateFolder;
  readonly #telemetry: Telemetry;
  readonly #log: Logger;

  constructor(config: SessionConfig, folder: StateFolder, telemetry: Telemetry, log: Logger) {
    this.#config = config;
    this.#folder = folder;
    this.#telemetry = telemetry;
    this.#log = log;
  }

  /** @throws PagewakeError, UserError: what cannot be about this migration */
  create(migration: NewMigration): MigrationSession {
    const record: MigrationRecord = {
      vmId: migration.vmId,
      sourceAddress: migration.sourceAddress,
      generation: migration.generation,
      tokenHex: Buffer.from(migration.token).toString('hex'),
      destinationId: randomBytes(16).toString('hex'),
      wantedMode: migration.wantedMode,
      vmmSocket: this.socketPath(migration),
      regionNames: [...migration.regionNames],
      startedAtMs: Date.now(),
      trace: this.#traceOf(migration),
    };
    return this.#session(migration.migrationId, record, false);
  }

  /** A record that makes no sense is told of and passed over: the others' guests wait. */
  adopt(): KnownMigration[] {
    const adopted: KnownMigration[] = [];
    const found = this.#folder.read(migrationRecord);
    found.sort((a, b) => (a.record.ended?.atMs ?? 0) - (b.record.ended?.atMs ?? 0));
    for (const { name, record } of found) {
      if (record.ended) {
        adopted.push(new EndedMigration(name, record, record.ended));
        continue;
      }
      try {
        adopted.push(this.#session(name, record, true));
        this.#log.info({ migration: name, vm: record.vmId }, 'taken up from the agent before this one');
      } catch (error) {
        this.#log.error(
          { migration: name, error: messageOf(error) },
          'cannot be taken up from the agent before this one',
        );
      }
    }
    return adopted;
  }

  #session(migrationId: string, record: MigrationRecord, adopted: boolean): MigrationSession {
    const log = this.#log.child({ vm: record.vmId, migration: migrationId });
    const { parentSpanId, ...trace } = record.trace;
    const session: MigrationSession = new MigrationSession({
      ...record,
      migrationId,
      wantedMode: record.wantedMode,
      token: Buffer.from(record.tokenHex, 'hex'),
      credentials: {
        tlsCa: this.#config.sourceTlsCa,
        tlsCert: this.#config.sourceTlsCert,
        tlsKey: this.#config.sourceTlsKey,
        serverName: this.#config.sourceServerName,
        allowPlaintext: this.#config.insecurePlaintext,
      },
      trace,
      traceRatio: this.#config.traceFaultRatio,
      faults: { spinUs: spinUsOf(this.#config.faultSpinUs), windowPages: this.#config.faultWindowPages },
      continuity: new Continuity(new RecordKeeper(this.#folder, migrationId, record), adopted, log),
      log,
      onFaultsTraced: (records) => {
        for (const fault of records) recordFault(this.#telemetry, record.vmId, fault);
      },
    });
    session.on('change', () => {
      if (trace.sampled && isFinal(session.phase))
        recordMigration(this.#telemetry, trace, parentSpanId, session.snapshot());
    });
    return session;
  }

  /** @throws PagewakeError INVALID_ARGUMENT where it is too long */
  socketPath({ vmId, vmmSocketName }: NewMigration): string {
    const path = join(this.#config.vmmSocketDir, vmmSocketName ?? `${vmId}.sock`);
    if (Buffer.byteLength(path) > MAX_SOCKET_PATH_BYTES)
      throw new PagewakeError(
        ErrorReason.INVALID_ARGUMENT,
        `${path} is too long for a Unix socket; give a shorter vmm_socket_name or vm_id, or the agent a shorter --vmm-socket-dir`,
      );
    return path;
  }

  /** The migration's own span: under the orchestrator's where there is one, else the root of a new trace. */
  #traceOf({ parent }: NewMigration): MigrationRecord['trace'] {
    const telemetry = this.#telemetry;
    const traceId = parent?.traceId ?? newTraceId();
    const sampled = telemetry.enabled && (parent ? parent.sampled : telemetry.sampleRoot(traceId, 'migration'));
    return { traceId, spanId: newSpanId(), sampled, parentSpanId: parent?.spanId };
  }
}
