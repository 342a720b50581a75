/** A migration's view in plain numbers and words, and what changed between two of them. */
import { timestampMs } from '@bufbuild/protobuf/wkt';
import { reasonName } from '@pagewake/agent-kit';
import { MemoryTier, MigrationMode, MigrationPhase, type Migration } from '@pagewake/proto';

/** JSON-ready. Counts are exact up to 2^53. */
export interface MigrationSummary {
  readonly migrationId: string;
  readonly vmId: string;
  /** As in the contract, in small letters with dashes: "awaiting-vmm". */
  readonly phase: string;
  readonly error: { readonly reason: string; readonly message: string } | null;
  readonly tier: string;
  readonly mode: string;
  readonly modeReason: string;
  readonly vmmSocket: string;
  /** ISO 8601. */
  readonly startedAt: string | null;
  readonly traceId: string;
  readonly pages: {
    readonly total: number;
    readonly present: number;
    readonly byFault: number;
    readonly byPrefetch: number;
    readonly zero: number;
    readonly removed: number;
  };
  readonly payloadBytes: number;
  readonly wireBytes: number;
  readonly fillingMs: number;
  readonly linkLosses: number;
  readonly badFrames: number;
  readonly faults: {
    readonly total: number;
    readonly userSpace: number;
    readonly stage2: number;
    readonly minor: number;
    readonly byCopy: number;
    readonly byZeropage: number;
    readonly byContinue: number;
    readonly byWrite: number;
    readonly byWake: number;
    /** Of `stage2`: by request of the VMM, after a KVM exit. */
    readonly stage2Exits: number;
    /** Of the calls above: those for stage-2 faults. */
    readonly stage2ByCopy: number;
    readonly stage2ByZeropage: number;
    readonly stage2ByContinue: number;
    readonly stage2ByWrite: number;
    readonly stage2ByWake: number;
    readonly fromSource: number;
    readonly fromPrefetchInFlight: number;
    readonly removedEvents: number;
    readonly stallP50Us: number;
    readonly stallP99Us: number;
    readonly stallMaxUs: number;
  };
}

/** `AWAITING_VMM` as people write it. */
const words = (name: string | undefined): string => (name ?? 'unknown').toLowerCase().replaceAll('_', '-');
const known = (name: string | undefined): string => (name === 'UNSPECIFIED' ? '' : words(name));

export const phaseName = (phase: MigrationPhase): string => words(MigrationPhase[phase]);

export function summaryOf(migration: Migration): MigrationSummary {
  const { progress: p, faults: f, error } = migration;
  const count = (value: bigint | undefined): number => Number(value ?? 0n);
  return {
    migrationId: migration.migrationId,
    vmId: migration.vmId,
    phase: phaseName(migration.phase),
    error: error === undefined ? null : { reason: reasonName(error.reason), message: error.message },
    tier: known(MemoryTier[migration.tier]),
    mode: known(MigrationMode[migration.mode]),
    modeReason: migration.modeReason,
    vmmSocket: migration.vmmSocket,
    startedAt: migration.startedAt === undefined ? null : new Date(timestampMs(migration.startedAt)).toISOString(),
    traceId: Buffer.from(migration.traceId).toString('hex'),
    pages: {
      total: count(p?.pagesTotal),
      present: count(p?.pagesPresent),
      byFault: count(p?.pagesByFault),
      byPrefetch: count(p?.pagesByPrefetch),
      zero: count(p?.pagesZero),
      removed: count(p?.pagesRemoved),
    },
    payloadBytes: count(p?.payloadBytes),
    wireBytes: count(p?.wireBytes),
    fillingMs: p?.fillingMs ?? 0,
    linkLosses: count(p?.linkLosses),
    badFrames: count(p?.badFrames),
    faults: {
      total: count(f?.total),
      userSpace: count(f?.userSpace),
      stage2: count(f?.stage2),
      minor: count(f?.minor),
      byCopy: count(f?.byCopy),
      byZeropage: count(f?.byZeropage),
      byContinue: count(f?.byContinue),
      byWrite: count(f?.byWrite),
      byWake: count(f?.byWake),
      stage2Exits: count(f?.stage2Exits),
      stage2ByCopy: count(f?.stage2ByCopy),
      stage2ByZeropage: count(f?.stage2ByZeropage),
      stage2ByContinue: count(f?.stage2ByContinue),
      stage2ByWrite: count(f?.stage2ByWrite),
      stage2ByWake: count(f?.stage2ByWake),
      fromSource: count(f?.fromSource),
      fromPrefetchInFlight: count(f?.fromPrefetchInFlight),
      removedEvents: count(f?.removedEvents),
      stallP50Us: f?.stallP50Us ?? 0,
      stallP99Us: f?.stallP99Us ?? 0,
      stallMaxUs: f?.stallMaxUs ?? 0,
    },
  };
}

export interface Rates {
  readonly pagesPerSecond: number;
  readonly bytesPerSecond: number;
  readonly faultsPerSecond: number;
}

const fetched = ({ pages }: MigrationSummary): number => pages.byFault + pages.byPrefetch;

/** Over `elapsedMs` between the two; zero where there is nothing to compare with. */
export function rateBetween(before: MigrationSummary | undefined, now: MigrationSummary, elapsedMs: number): Rates {
  const perSecond = (from: number | undefined, to: number): number =>
    from === undefined || elapsedMs <= 0 ? 0 : Math.max(0, ((to - from) * 1000) / elapsedMs);
  return {
    // Not those that are present: pages known to be zero become so all at once.
    pagesPerSecond: perSecond(before && fetched(before), fetched(now)),
    bytesPerSecond: perSecond(before?.payloadBytes, now.payloadBytes),
    faultsPerSecond: perSecond(before?.faults.total, now.faults.total),
  };
}
