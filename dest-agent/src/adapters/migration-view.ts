/** A session's snapshot as the message that the orchestrator gets. */
import { create } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import type { Mode, Phase, Tier } from '@pagewake/core';
import { MemoryTier, MigrationMode, MigrationPhase, MigrationSchema, type Migration } from '@pagewake/proto';
import type { SessionSnapshot } from '../session/snapshot.ts';

const PHASE: Readonly<Record<Phase, MigrationPhase>> = {
  preparing: MigrationPhase.PREPARING,
  'awaiting-vmm': MigrationPhase.AWAITING_VMM,
  opening: MigrationPhase.OPENING,
  held: MigrationPhase.HELD,
  filling: MigrationPhase.FILLING,
  paused: MigrationPhase.PAUSED,
  interrupted: MigrationPhase.INTERRUPTED,
  finishing: MigrationPhase.FINISHING,
  completed: MigrationPhase.COMPLETED,
  failed: MigrationPhase.FAILED,
  cancelled: MigrationPhase.CANCELLED,
};

const TIER: Readonly<Record<Tier, MemoryTier>> = {
  'guest-memfd-full': MemoryTier.GUEST_MEMFD_FULL,
  'guest-memfd-eager': MemoryTier.GUEST_MEMFD_EAGER,
  'memfd-userfault': MemoryTier.MEMFD_USERFAULT,
  memfd: MemoryTier.MEMFD,
  anonymous: MemoryTier.ANONYMOUS,
};

const MODE: Readonly<Record<Mode, MigrationMode>> = {
  'post-copy': MigrationMode.POST_COPY,
  eager: MigrationMode.EAGER,
};

export function toMigration(s: SessionSnapshot): Migration {
  const { faults, bulk, ledger } = s;
  return create(MigrationSchema, {
    migrationId: s.migrationId,
    vmId: s.vmId,
    phase: PHASE[s.phase],
    ...(s.error ? { error: s.error.toDetail() } : {}),
    tier: s.tier ? TIER[s.tier] : MemoryTier.UNSPECIFIED,
    mode: s.mode ? MODE[s.mode] : MigrationMode.UNSPECIFIED,
    modeReason: s.modeReason,
    vmmSocket: s.vmmSocket,
    startedAt: timestampFromMs(s.startedAtMs),
    traceId: Buffer.from(s.traceId, 'hex'),
    progress: {
      pagesTotal: BigInt(ledger.total),
      pagesPresent: BigInt(ledger.total - ledger.unresolved),
      pagesByFault: BigInt(faults.pagesInstalled),
      pagesByPrefetch: BigInt(bulk.pagesInstalled + faults.neighboursInstalled),
      pagesZero: BigInt(ledger.zeroAtOpen),
      pagesRemoved: BigInt(ledger.removed),
      payloadBytes: BigInt(faults.payloadBytes + bulk.payloadBytes),
      wireBytes: BigInt(faults.wireBytes + bulk.wireBytes),
      fillingMs: s.fillingMs,
      linkLosses: BigInt(s.linkLosses),
      badFrames: BigInt(faults.badFrames + bulk.badFrames),
    },
    faults: {
      total: BigInt(faults.total),
      userSpace: BigInt(faults.userSpace),
      stage2: BigInt(faults.stage2),
      minor: BigInt(faults.minor),
      byCopy: BigInt(faults.byCopy),
      byZeropage: BigInt(faults.byZeropage),
      byContinue: BigInt(faults.byContinue),
      byWrite: BigInt(faults.byWrite),
      byWake: BigInt(faults.byWake),
      stage2Exits: BigInt(faults.stage2Exits),
      stage2ByCopy: BigInt(faults.stage2ByCopy),
      stage2ByZeropage: BigInt(faults.stage2ByZeropage),
      stage2ByContinue: BigInt(faults.stage2ByContinue),
      stage2ByWrite: BigInt(faults.stage2ByWrite),
      stage2ByWake: BigInt(faults.stage2ByWake),
      fromSource: BigInt(faults.fromSource),
      fromPrefetchInFlight: BigInt(faults.fromPrefetchInFlight),
      stallP50Us: faults.stallP50Us,
      stallP99Us: faults.stallP99Us,
      stallMaxUs: faults.stallMaxUs,
      removedEvents: BigInt(faults.removedEvents),
    },
  });
}

export function modeFrom(mode: MigrationMode): Mode | undefined {
  switch (mode) {
    case MigrationMode.POST_COPY:
      return 'post-copy';
    case MigrationMode.EAGER:
      return 'eager';
    case MigrationMode.UNSPECIFIED:
      return undefined;
    default:
      return undefined;
  }
}
