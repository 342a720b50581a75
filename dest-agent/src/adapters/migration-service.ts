/** MigrationService over gRPC: requests in, sessions made and asked, views out. */
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { isFinal, type Mode } from '@pagewake/core';
import {
  implement,
  MigrationService,
  writeMessage,
  type BoundService,
  type Handlers,
  type StartRequest,
  type TraceContext,
} from '@pagewake/proto';
import { create } from '@bufbuild/protobuf';
import { WatchResponseSchema } from '@pagewake/proto';
import { ErrorReason, PagewakeError, UserError } from '../kit.ts';
import { hexId, toServiceError } from '../main-kit.ts';
import type { TraceIds } from '../lanes/messages.ts';
import type { KnownMigration, SessionRegistry } from '../session/registry.ts';
import type { MigrationSession } from '../session/session.ts';
import { modeFrom, toMigration } from './migration-view.ts';

export interface NewMigration {
  readonly migrationId: string;
  readonly vmId: string;
  readonly sourceAddress: string;
  readonly generation: number;
  readonly token: Uint8Array;
  readonly wantedMode: Mode | undefined;
  readonly parent: TraceIds | undefined;
  /** File name of the VMM socket; undefined: named after the VM. */
  readonly vmmSocketName: string | undefined;
  readonly regionNames: readonly string[];
}

export interface MigrationServiceOptions {
  readonly registry: SessionRegistry;
  /** Makes the session of a checked request. */
  newSession(migration: NewMigration): MigrationSession;
  onBug(error: unknown): void;
}

const WATCH_DEFAULT_MS = 1000;
const WATCH_MIN_MS = 50;
const SAMPLED = 1;
/** Becomes part of a file name. */
const VM_ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
/** Is a file name: none of them names another folder, or is hidden. */
const SOCKET_NAME = /^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$/;

const invalid = (message: string): PagewakeError => new PagewakeError(ErrorReason.INVALID_ARGUMENT, message);

function traceOf(context: TraceContext | undefined): TraceIds | undefined {
  if (!context) return undefined;
  if (context.traceId.length !== 16 || context.spanId.length !== 8)
    throw invalid('trace: trace_id has 16 bytes and span_id 8');
  return {
    traceId: hexId(context.traceId),
    spanId: hexId(context.spanId),
    sampled: (context.flags & SAMPLED) !== 0,
  };
}

function check(request: StartRequest): NewMigration {
  if (!VM_ID.test(request.vmId))
    throw invalid(`vm_id ${JSON.stringify(request.vmId)}: 1 to 64 letters, digits, dots, dashes or underscores`);
  if (request.migrationId !== '' && !VM_ID.test(request.migrationId))
    throw invalid(
      `migration_id ${JSON.stringify(request.migrationId)}: 1 to 64 letters, digits, dots, dashes or underscores`,
    );
  if (request.sourceAddress === '') throw invalid('source_address is empty; give host:port of the source agent');
  if (request.generation === 0) throw invalid('generation is 0; give what Register returned');
  if (request.vmmSocketName !== '' && !SOCKET_NAME.test(request.vmmSocketName))
    throw invalid(
      `vmm_socket_name ${JSON.stringify(request.vmmSocketName)}: 1 to 64 letters, digits, dots, dashes or underscores, and no dot in front: a name in the agent's folder of VMM sockets`,
    );
  if (new Set(request.regionNames).size !== request.regionNames.length || request.regionNames.includes(''))
    throw invalid(`region_names ${JSON.stringify(request.regionNames)}: every name once, and none empty`);
  return {
    migrationId: request.migrationId === '' ? randomUUID() : request.migrationId,
    vmId: request.vmId,
    sourceAddress: request.sourceAddress,
    generation: request.generation,
    token: Uint8Array.from(request.token),
    wantedMode: modeFrom(request.mode),
    parent: traceOf(request.trace),
    vmmSocketName: request.vmmSocketName === '' ? undefined : request.vmmSocketName,
    regionNames: [...request.regionNames],
  };
}

/** Resolves at the next change, or after the interval, or once the caller has gone. */
async function nextView(session: KnownMigration, intervalMs: number, gone: AbortSignal): Promise<void> {
  const wait = AbortSignal.any([gone, AbortSignal.timeout(intervalMs)]);
  await once(session, 'change', { signal: wait }).catch(() => undefined);
}

export function migrationService(options: MigrationServiceOptions): BoundService {
  const { registry } = options;
  const view = (session: KnownMigration) => ({ migration: toMigration(session.snapshot()) });
  const sessionOf = (migration: NewMigration): MigrationSession => {
    try {
      return options.newSession(migration);
    } catch (error) {
      // Not an address, or one that this agent's settings do not let it speak to.
      if (error instanceof UserError) throw invalid(`source_address ${migration.sourceAddress}: ${error.message}`);
      throw error;
    }
  };
  const handlers: Handlers<typeof MigrationService> = {
    async start(request) {
      const migration = check(request);
      registry.check(migration.migrationId, migration.vmId);
      const session = sessionOf(migration);
      registry.add(session);
      await session.prepare();
      return view(session);
    },
    get: ({ migrationId }) => view(registry.get(migrationId)),
    list: () => ({ migrations: registry.all().map((session) => toMigration(session.snapshot())) }),
    async watch(call) {
      const session = registry.get(call.request.migrationId);
      const { intervalMs } = call.request;
      if (intervalMs !== 0 && intervalMs < WATCH_MIN_MS)
        throw invalid(`interval_ms is ${intervalMs}; at least ${WATCH_MIN_MS}, or 0 for ${WATCH_DEFAULT_MS}`);
      const gone = new AbortController();
      call.on('cancelled', () => gone.abort());
      for (;;) {
        const final = isFinal(session.phase);
        await writeMessage(call, create(WatchResponseSchema, view(session)));
        if (final || gone.signal.aborted) return;
        // A phase that became final while this was being written has no other change to wait for.
        if (!isFinal(session.phase)) await nextView(session, intervalMs || WATCH_DEFAULT_MS, gone.signal);
      }
    },
    pause({ migrationId }) {
      const session = registry.get(migrationId);
      session.pausePrefetch();
      return view(session);
    },
    resume({ migrationId }) {
      const session = registry.get(migrationId);
      session.resume();
      return view(session);
    },
    cancel({ migrationId, force }) {
      const session = registry.get(migrationId);
      session.cancel(force);
      return view(session);
    },
  };
  return implement(MigrationService, handlers, (error) => toServiceError(error, (bug) => options.onBug(bug)));
}
