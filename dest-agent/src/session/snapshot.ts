/** What can be known of a migration at one moment: plain values, which the gRPC adapter turns into a message. */
import type { Mode, Phase, Tier } from '@pagewake/core';
import type { BulkCounter, Counters, FaultCounter } from '../lanes/counters.ts';
import type { PagewakeError } from '../kit.ts';

export interface LedgerTotals {
  readonly total: number;
  readonly unresolved: number;
  /** Known to be zero at the opening, and never sent. */
  readonly zeroAtOpen: number;
  readonly removed: number;
}

export const NO_LEDGER: LedgerTotals = { total: 0, unresolved: 0, zeroAtOpen: 0, removed: 0 };

export interface SessionSnapshot {
  readonly migrationId: string;
  readonly vmId: string;
  readonly phase: Phase;
  readonly error: PagewakeError | undefined;
  readonly tier: Tier | undefined;
  readonly mode: Mode | undefined;
  readonly modeReason: string;
  readonly vmmSocket: string;
  readonly startedAtMs: number;
  readonly fillingMs: number;
  readonly linkLosses: number;
  readonly traceId: string;
  readonly ledger: LedgerTotals;
  readonly faults: Readonly<Record<FaultCounter, number>>;
  readonly bulk: Readonly<Record<BulkCounter, number>>;
}

export function readAll<Name extends string>(counters: Counters<Name>, names: readonly Name[]): Record<Name, number> {
  return Object.fromEntries(names.map((name) => [name, counters.get(name)])) as Record<Name, number>;
}
