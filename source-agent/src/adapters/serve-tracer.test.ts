import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { createLogger, newSpanId, newTraceId, startTelemetry, type TelemetryOptions } from '@pagewake/agent-kit';
import { BulkRequestSchema, FaultsRequestSchema, type FaultsRequest, type FaultsResponse } from '@pagewake/proto';
import { startAgent, TOKEN } from '../../test/agent.ts';
import { Conversation, readOpen } from '../../test/conversation.ts';
import { K4, makeMemfd, noise } from '../../test/guests.ts';

type Exporter = NonNullable<TelemetryOptions['traceExporter']>;
type Span = Parameters<Exporter['export']>[0][number];

class KeepingExporter implements Exporter {
  readonly spans: Span[] = [];

  export(spans: Span[], done: Parameters<Exporter['export']>[1]): void {
    this.spans.push(...spans);
    // oxlint-disable-next-line typescript/no-unsafe-enum-assignment -- the enum's package is not a dependency of ours
    done({ code: 0 });
  }

  shutdown(): Promise<void> {
    return Promise.resolve();
  }
}

const SAMPLED = 1;
const bytes = (hex: string): Uint8Array<ArrayBuffer> => Uint8Array.from(Buffer.from(hex, 'hex'));
const ms = ([seconds, nanoseconds]: readonly [number, number]): number => seconds * 1000 + nanoseconds / 1e6;

test(
  'a sampled fault has a serve span under the span it came from, with read and encode inside; others have none',
  { timeout: 20_000 },
  async (t) => {
    const traceExporter = new KeepingExporter();
    const log = createLogger('test', 'silent');
    const telemetry = await startTelemetry({ serviceName: 'test', log, traceExporter });
    const agent = await startAgent(t, { telemetry });
    const file = makeMemfd(t, 4 * K4);
    for (let page = 0; page < 4; page++) file.write(page * K4, noise(page));
    const regions = [{ geometry: { pageSizeBytes: K4, pageCount: 4 }, fileOffset: 0n }];
    const generation = await agent.serve('vm', { kind: { case: 'file', value: { path: file.path, regions } } });
    const { accepted } = await readOpen(
      agent.pages.open({ protocolVersion: 1, vmId: 'vm', generation, token: TOKEN, destinationId: 'd' }),
    );

    const [traceId, faultSpan, rangeSpan] = [newTraceId(), newSpanId(), newSpanId()];
    const context = (spanId: string, flags: number) => ({ traceId: bytes(traceId), spanId: bytes(spanId), flags });
    const before = Date.now();
    const lane: Conversation<FaultsRequest, FaultsResponse> = new Conversation(agent.pages.faults());
    lane.send(
      create(FaultsRequestSchema, {
        session: accepted.session,
        faults: [
          { faultId: 1, page: 2, trace: context(faultSpan, SAMPLED) },
          { faultId: 2, page: 1, trace: context(newSpanId(), 0) },
          { faultId: 3, page: 0 },
          { faultId: 4, page: 3, trace: { traceId: bytes('00'), spanId: bytes('00'), flags: SAMPLED } },
        ],
      }),
    );
    for (let i = 0; i < 4; i++) await lane.next();
    const bulk = new Conversation(agent.pages.bulk());
    const range = { region: 0, firstPage: 0, pageCount: 4 };
    bulk.send(
      create(BulkRequestSchema, { session: accepted.session, rangeId: 1, range, trace: context(rangeSpan, SAMPLED) }),
    );
    await bulk.next();
    const after = Date.now();
    // Spans are built when the loop has time: one turn later.
    await new Promise((resolve) => setImmediate(resolve));
    await telemetry.shutdown();

    const serves = traceExporter.spans.filter((span) => span.name === 'serve');
    assert.deepEqual(
      new Map(serves.map((span) => [span.parentSpanContext?.spanId, span.attributes['pagewake.lane']])),
      new Map([
        [faultSpan, 'fault'],
        [rangeSpan, 'bulk'],
      ]),
    );
    assert.equal(serves.length, 2);
    const serve = serves.find((span) => span.attributes['pagewake.lane'] === 'fault');
    assert(serve !== undefined);
    assert.equal(serve.spanContext().traceId, traceId);
    assert.equal(serve.kind, 1, 'SERVER');
    assert.equal(serve.parentSpanContext?.isRemote, true);
    const { 'pagewake.queue.ms': queueMs, ...attributes } = serve.attributes;
    assert(typeof queueMs === 'number' && queueMs >= 0);
    assert.deepEqual(attributes, {
      'pagewake.vm.id': 'vm',
      'pagewake.lane': 'fault',
      'pagewake.region': 0,
      'pagewake.page': 2,
      'pagewake.page.count': 1,
      'pagewake.encoding': 'raw',
      'pagewake.payload.bytes': 4096,
    });
    assert(ms(serve.startTime) >= before - 5 && ms(serve.endTime) <= after + 5);

    const children = traceExporter.spans.filter(
      (span) => span.parentSpanContext?.spanId === serve.spanContext().spanId,
    );
    const [read, encode] = children;
    assert.deepEqual([read?.name, encode?.name, children.length], ['read', 'encode', 2]);
    assert(read !== undefined && encode !== undefined);
    for (const [earlier, later] of [
      [serve.startTime, read.startTime],
      [read.startTime, read.endTime],
      [read.endTime, encode.startTime],
      [encode.startTime, encode.endTime],
      [encode.endTime, serve.endTime],
    ] as const) {
      // A clock read twice in the same microsecond may round either way.
      assert(ms(earlier) <= ms(later) + 0.001);
    }
  },
);
