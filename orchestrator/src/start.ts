/** The call that begins a migration on the destination agent. */
import { randomUUID } from 'node:crypto';
import { ErrorReason, PagewakeError } from '@pagewake/agent-kit';
import { MigrationMode, type Migration } from '@pagewake/proto';
import type { DestinationAgent } from './agents.ts';
import type { EarlyHandOver } from './drivers/driver.ts';
import type { MigrateOptions, Mode } from './options.ts';
import type { WireTrace } from './tracing.ts';

const START_TIMEOUT_MS = 30_000;

const MODE: Readonly<Record<Mode, MigrationMode>> = {
  auto: MigrationMode.UNSPECIFIED,
  'post-copy': MigrationMode.POST_COPY,
  eager: MigrationMode.EAGER,
};

export interface Beginning {
  readonly vmId: string;
  readonly generation: number;
  readonly token: Uint8Array;
  readonly handOver: EarlyHandOver | undefined;
  readonly trace: WireTrace | undefined;
}

/** @param onId hears the migration's id as soon as the agent may have it, also where the call then fails: it must be given up by that id */
export async function startMigration(
  destination: DestinationAgent,
  options: MigrateOptions,
  { vmId, generation, token, handOver, trace }: Beginning,
  onId: (migrationId: string) => void,
): Promise<Migration> {
  const migrationId = options.migrationId ?? randomUUID();
  const request = {
    migrationId,
    vmId,
    sourceAddress: options.sourceFromDestination ?? options.source.address,
    generation,
    token,
    mode: handOver === undefined ? MODE[options.mode ?? 'auto'] : MigrationMode.POST_COPY,
    ...(handOver === undefined
      ? {}
      : { vmmSocketName: handOver.vmmSocketName ?? `${vmId}.sock`, regionNames: [...handOver.regionNames] }),
    ...(trace === undefined ? {} : { trace }),
  };
  const limits = { timeoutMs: START_TIMEOUT_MS, signal: options.signal };
  const { migration } = await destination
    .call((c, o) => c.start(request, o), limits)
    .catch((error: unknown) => {
      // Another's, and not to be given up by us.
      if (!(error instanceof PagewakeError && error.reason === ErrorReason.MIGRATION_EXISTS)) onId(migrationId);
      if (!(error instanceof PagewakeError) || error.reason !== ErrorReason.SOURCE_UNREACHABLE) throw error;
      throw new PagewakeError(
        error.reason,
        `the destination agent does not reach the source agent at ${request.sourceAddress} (${error.message}); is that its address from there?`,
        error.metadata,
        { cause: error },
      );
    });
  onId(migrationId);
  if (migration === undefined) throw new PagewakeError(ErrorReason.INTERNAL, 'Start answered without a migration');
  return migration;
}
