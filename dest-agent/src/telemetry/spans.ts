/**
 * Spans of a migration and of its faults (names and attributes: docs/telemetry.md). Made on the main thread after the fact, from ids that
 * were on the wire already and times that the lanes took.
 */
import { newSpanId, type Telemetry } from '../kit.ts';
import { SpanKind, SpanStatusCode } from '../main-kit.ts';
import type { FaultRecord, TraceIds } from '../lanes/messages.ts';
import type { SessionSnapshot } from '../session/snapshot.ts';

export function recordFault(telemetry: Telemetry, vmId: string, record: FaultRecord): void {
  const { traceId, faultSpanId, requestSpanId } = record;
  const page = { 'pagewake.vm.id': vmId, 'pagewake.region': record.region, 'pagewake.page': record.page };
  telemetry.recordSpan({
    name: 'fault',
    kind: SpanKind.INTERNAL,
    traceId,
    spanId: faultSpanId,
    parentSpanId: record.parentSpanId,
    startMs: record.readAtMs,
    endMs: record.installedAtMs,
    attributes: {
      ...page,
      'pagewake.fault.origin': record.origin,
      'pagewake.install.call': record.call,
      'thread.id': record.threadId,
    },
  });
  const child = (name: string, startMs: number, endMs: number, attributes = {}, spanId = newSpanId()): void => {
    const kind = name === 'request' ? SpanKind.CLIENT : SpanKind.INTERNAL;
    telemetry.recordSpan({ name, kind, traceId, spanId, parentSpanId: faultSpanId, startMs, endMs, attributes });
  };
  child('queue', record.readAtMs, record.requestedAtMs);
  child(
    'request',
    record.requestedAtMs,
    record.receivedAtMs,
    {
      'rpc.system': 'grpc',
      'rpc.service': 'pagewake.v1.PageService',
      'rpc.method': 'Faults',
      'pagewake.payload.bytes': record.payloadBytes,
      'pagewake.source.queue_us': record.sourceQueueNs / 1000,
      'pagewake.source.read_us': record.sourceReadNs / 1000,
      'pagewake.source.encode_us': record.sourceEncodeNs / 1000,
    },
    requestSpanId,
  );
  child('verify', record.receivedAtMs, record.verifiedAtMs, { 'pagewake.content': record.encoding });
  child('install', record.verifiedAtMs, record.installedAtMs, { 'pagewake.install.call': record.call });
}

export function recordMigration(
  telemetry: Telemetry,
  trace: TraceIds,
  parentSpanId: string | undefined,
  s: SessionSnapshot,
): void {
  telemetry.recordSpan({
    name: 'migration',
    kind: SpanKind.SERVER,
    traceId: trace.traceId,
    spanId: trace.spanId,
    ...(parentSpanId === undefined ? {} : { parentSpanId, parentIsRemote: true }),
    startMs: s.startedAtMs,
    endMs: Date.now(),
    attributes: {
      'pagewake.vm.id': s.vmId,
      'pagewake.migration.id': s.migrationId,
      'pagewake.migration.phase': s.phase,
      'pagewake.memory.tier': s.tier ?? 'unknown',
      'pagewake.migration.mode': s.mode ?? 'unknown',
      'pagewake.pages.total': s.ledger.total,
      'pagewake.pages.by_fault': s.faults.pagesInstalled,
      'pagewake.pages.by_prefetch': s.bulk.pagesInstalled + s.faults.neighboursInstalled,
      'pagewake.pages.zero': s.ledger.zeroAtOpen,
      'pagewake.faults': s.faults.total,
    },
    ...(s.error && s.phase !== 'completed'
      ? { status: { code: SpanStatusCode.ERROR, message: `${s.error.reasonName}: ${s.error.message}` } }
      : {}),
  });
}
