import type { Mode } from '@pagewake/core';
import type { Logger } from '../kit.ts';
import type { FaultRecord, FaultTuning, SourceCredentials, TraceIds } from '../lanes/messages.ts';
import type { Continuity } from './continuity.ts';

/** What makes one migration. */
export interface SessionOptions {
  readonly migrationId: string;
  readonly vmId: string;
  readonly sourceAddress: string;
  readonly generation: number;
  readonly token: Uint8Array;
  /** Who we are to the source: the one that may come again. */
  readonly destinationId: string;
  readonly wantedMode: Mode | undefined;
  readonly regionNames: readonly string[];
  readonly vmmSocket: string;
  readonly credentials: SourceCredentials;
  /** The migration's own span; absent: not traced. */
  readonly trace: TraceIds;
  readonly traceRatio: number;
  readonly faults: FaultTuning;
  readonly startedAtMs: number;
  readonly continuity: Continuity;
  readonly log: Logger;
  onFaultsTraced(records: readonly FaultRecord[]): void;
}
