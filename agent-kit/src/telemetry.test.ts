import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SpanKind, SpanStatusCode } from '@opentelemetry/api';
import { createLogger } from './log.ts';
import { newSpanId, newTraceId } from './random-ids.ts';
import { hexId, startTelemetry, telemetryWanted, type TelemetryOptions } from './telemetry.ts';

type Exporter = NonNullable<TelemetryOptions['traceExporter']>;
type ExportedSpan = Parameters<Exporter['export']>[0][number];

class KeepingExporter implements Exporter {
  readonly spans: ExportedSpan[] = [];

  export(spans: ExportedSpan[], done: Parameters<Exporter['export']>[1]): void {
    this.spans.push(...spans);
    // oxlint-disable-next-line typescript/no-unsafe-enum-assignment -- the enum's package is not a dependency of ours
    done({ code: 0 });
  }

  shutdown(): Promise<void> {
    return Promise.resolve();
  }
}

const log = createLogger('test', 'silent');

test('tracing is on only when a standard variable asks for it', () => {
  const cases: readonly [Record<string, string>, boolean][] = [
    [{}, false],
    [{ OTEL_EXPORTER_OTLP_ENDPOINT: 'http://c:4318' }, true],
    [{ OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'http://c:4318' }, true],
    [{ OTEL_TRACES_EXPORTER: 'console' }, true],
    [{ OTEL_TRACES_EXPORTER: 'none', OTEL_EXPORTER_OTLP_ENDPOINT: 'http://c:4318' }, false],
    [{ OTEL_EXPORTER_OTLP_ENDPOINT: 'http://c:4318', OTEL_SDK_DISABLED: 'True' }, false],
    [{ OTEL_EXPORTER_OTLP_ENDPOINT: ' ' }, false],
  ];
  for (const [env, wanted] of cases) assert.equal(telemetryWanted(env), wanted, JSON.stringify(env));
});

test('without the variables nothing is enabled and recording is harmless', async () => {
  for (const name of Object.keys(process.env)) if (name.startsWith('OTEL_')) delete process.env[name];
  const telemetry = await startTelemetry({ serviceName: 's', log });
  assert.equal(telemetry.enabled, false);
  assert.equal(telemetry.sampleRoot(newTraceId(), 'x'), false);
  telemetry.recordSpan({
    name: 'x',
    kind: SpanKind.SERVER,
    traceId: newTraceId(),
    spanId: newSpanId(),
    startMs: 1,
    endMs: 2,
  });
  await telemetry.shutdown();
});

test('a span recorded afterwards has exactly the ids, parent, times and attributes that were given', async () => {
  const traceExporter = new KeepingExporter();
  const telemetry = await startTelemetry({ serviceName: 'pagewake-test', log, traceExporter });
  const traceId = newTraceId();
  const [root, child, grandchild] = [newSpanId(), newSpanId(), newSpanId()];
  const startMs = 1_790_000_000_123.25;
  telemetry.recordSpan({
    name: 'grandchild',
    kind: SpanKind.INTERNAL,
    traceId,
    spanId: grandchild,
    parentSpanId: child,
    startMs: startMs + 1,
    endMs: startMs,
  });
  telemetry.recordSpan({
    name: 'child',
    kind: SpanKind.SERVER,
    traceId,
    spanId: child,
    parentSpanId: root,
    parentIsRemote: true,
    startMs,
    endMs: startMs + 0.5,
    attributes: { 'pagewake.page': 7 },
    status: { code: SpanStatusCode.ERROR, message: 'no' },
  });
  telemetry.recordSpan({ name: 'root', kind: SpanKind.CONSUMER, traceId, spanId: root, startMs, endMs: startMs + 2 });
  // Ids of ordinary spans are their own again.
  telemetry.tracer.startSpan('ordinary').end();
  await telemetry.shutdown();

  const byName = new Map(traceExporter.spans.map((span) => [span.name, span]));
  assert.equal(byName.size, 4);
  for (const [name, id, parent] of [
    ['root', root, undefined],
    ['child', child, root],
    ['grandchild', grandchild, child],
  ] as const) {
    const span = byName.get(name);
    assert.deepEqual([span?.spanContext().traceId, span?.spanContext().spanId], [traceId, id]);
    assert.equal(span?.parentSpanContext?.spanId, parent);
  }
  const server = byName.get('child');
  assert.deepEqual(server?.startTime, [1_790_000_000, 123_250_000]);
  assert.deepEqual(server?.endTime, [1_790_000_000, 123_750_000]);
  assert.equal(server?.kind, SpanKind.SERVER);
  assert.equal(server?.parentSpanContext?.isRemote, true);
  assert.deepEqual(server?.attributes, { 'pagewake.page': 7 });
  assert.deepEqual(server?.status, { code: SpanStatusCode.ERROR, message: 'no' });
  assert.equal(server?.resource.attributes['service.name'], 'pagewake-test');
  assert.deepEqual(byName.get('grandchild')?.duration, [0, 0]);
  const ordinary = byName.get('ordinary')?.spanContext();
  assert.notEqual(ordinary?.traceId, traceId);
  assert(![root, child, grandchild].includes(ordinary?.spanId ?? ''));
});

test('an id on the wire reads as the hex that the SDK writes, also from the middle of a buffer', () => {
  const buffer = new Uint8Array([9, 0, 1, 0xab, 9]);
  assert.equal(hexId(buffer.subarray(1, 4)), '0001ab');
});
