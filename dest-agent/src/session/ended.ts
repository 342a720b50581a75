/** A migration that ended under an agent that is gone: it can be looked at, and nothing else. */
import { PagewakeError } from '../kit.ts';
import { BULK_COUNTERS, FAULT_COUNTERS } from '../lanes/counters.ts';
import { PhaseMachine } from './phase-machine.ts';
import type { Ended, MigrationRecord } from './record.ts';
import type { SessionSnapshot } from './snapshot.ts';

export function endedOf(snapshot: SessionSnapshot): Ended {
  const { phase, error, tier, mode, modeReason, fillingMs, linkLosses, ledger, faults, bulk } = snapshot;
  if (phase !== 'completed' && phase !== 'failed' && phase !== 'cancelled') throw new Error(`${phase} is no end`);
  return {
    phase,
    ...(error ? { error: { reason: error.reason, message: error.message, metadata: { ...error.metadata } } } : {}),
    tier,
    mode,
    modeReason,
    fillingMs,
    linkLosses,
    ledger,
    faults,
    bulk,
    atMs: Date.now(),
  };
}

export class EndedMigration extends PhaseMachine {
  readonly migrationId: string;
  readonly vmId: string;
  readonly vmmSocket: string;
  readonly #record: MigrationRecord;
  readonly #ended: Ended;

  constructor(migrationId: string, record: MigrationRecord, ended: Ended) {
    super(ended.phase);
    this.migrationId = migrationId;
    this.vmId = record.vmId;
    this.vmmSocket = record.vmmSocket;
    this.#record = record;
    this.#ended = ended;
  }

  pausePrefetch(): void {
    throw this.wrongPhase('paused');
  }

  resume(): void {
    throw this.wrongPhase('resumed');
  }

  cancel(): void {
    throw this.wrongPhase('cancelled');
  }

  snapshot(): SessionSnapshot {
    const { error, faults, bulk, tier, mode, ...rest } = this.#ended;
    const { vmId, vmmSocket, startedAtMs, trace } = this.#record;
    return {
      ...rest,
      migrationId: this.migrationId,
      vmId,
      vmmSocket,
      startedAtMs,
      tier,
      mode,
      traceId: trace.traceId,
      error: error && new PagewakeError(error.reason, error.message, error.metadata),
      faults: pick(FAULT_COUNTERS, faults),
      bulk: pick(BULK_COUNTERS, bulk),
    };
  }
}

function pick<Name extends string>(
  names: readonly Name[],
  values: Readonly<Record<string, number>>,
): Record<Name, number> {
  return Object.fromEntries(names.map((name) => [name, values[name] ?? 0])) as Record<Name, number>;
}
