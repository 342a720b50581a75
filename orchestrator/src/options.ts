/** What a migration is told, and what it comes to. */
import type { Tracer } from '@opentelemetry/api';
import type { Migration } from '@pagewake/proto';
import type { AgentOptions } from './agents.ts';
import type { VmmDriver } from './drivers/driver.ts';
import type { Step } from './events.ts';
import type { PhaseTime } from './phase.ts';

export const MODES = ['auto', 'post-copy', 'eager'] as const;
/** auto: post-copy where the destination can trap the memory, else eager, with the reason in `Migration.mode_reason`. */
export type Mode = (typeof MODES)[number];

export interface MigrateOptions {
  /** Drives both VMMs. Belongs to the migration from here on, which closes it. */
  readonly driver: VmmDriver;
  /** The agent on the host where the guest runs. */
  readonly source: AgentOptions;
  /** The agent on the host where it is to run. */
  readonly destination: AgentOptions;
  /** The source agent's address as the destination agent reaches it. Default: `source.address`. */
  readonly sourceFromDestination?: string | undefined;
  /** Default: what the source's VMM calls its guest. Where both are there they must agree. */
  readonly vmId?: string | undefined;
  /** Default: the destination agent chooses one. */
  readonly migrationId?: string | undefined;
  /** Default: auto. */
  readonly mode?: Mode | undefined;
  /** How often at least there is a `progress`. Default: 1000; at least 50. */
  readonly progressIntervalMs?: number | undefined;
  /** How long the destination agent may be silent before the migration is given up as unknown. Default: 60 000. */
  readonly destinationLossMs?: number | undefined;
  /** How long a VMM that hands its memory over while the guest still runs may take for that. Default: 30 000. */
  readonly handOverMs?: number | undefined;
  /**
   * Before the guest has moved: everything is taken back and it runs on on the source. Afterwards: the migration goes on without us
   * (`detached`), because there is no way back.
   */
  readonly signal?: AbortSignal | undefined;
  /** Default: the one that the process registered with OpenTelemetry's API, which is none unless it did. */
  readonly tracer?: Tracer | undefined;
}

export interface MigrationResult {
  readonly migrationId: string;
  readonly vmId: string;
  readonly generation: number;
  /** 32 hex digits; undefined without tracing. */
  readonly traceId: string | undefined;
  /** Paused on the source to running on the destination. */
  readonly downtimeMs: number;
  /**
   * Whose clock that is. `vmm`: of the VMMs or their one host. The orchestrator's is from what it was told of both sides, so it includes the way
   * there.
   */
  readonly downtimeClock: 'vmm' | 'orchestrator';
  /** From the call of `migrate` to the last page and the source's release. */
  readonly totalMs: number;
  readonly phases: readonly PhaseTime[];
  readonly steps: readonly { readonly step: Step; readonly ms: number }[];
  /** As the source found them when the guest was paused. */
  readonly dataPages: number;
  readonly zeroPages: number;
  /** The destination's last view. */
  readonly migration: Migration;
  readonly warnings: readonly string[];
}
