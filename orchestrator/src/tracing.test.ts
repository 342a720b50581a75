import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLogger, startTelemetry, type TelemetryOptions } from '@pagewake/agent-kit';
import { setStage, whyNoMigrations } from '../test/programs.ts';
import { migrate, summaryOf, TestVmmDriver } from './index.ts';

const WHOLE = { timeout: 60_000, skip: whyNoMigrations() ?? false };
type Exporter = NonNullable<TelemetryOptions['traceExporter']>;
type Spans = Parameters<Exporter['export']>[0];

test(
  'a migration is one trace: the steps hang under `migrate`, and the destination goes on with the same trace',
  WHOLE,
  async (t) => {
    const spans: Spans[number][] = [];
    const traceExporter: Exporter = {
      export: (batch: Spans, done: (result: { code: number }) => void) => {
        spans.push(...batch);
        done({ code: 0 });
      },
      shutdown: () => Promise.resolve(),
    };
    const log = createLogger('test', 'silent');
    const telemetry = await startTelemetry({ serviceName: 'pagewake-orchestrator', log, traceExporter });
    const stage = await setStage(t);
    const result = await migrate({
      driver: new TestVmmDriver({ sourceSocket: stage.from.socket, destinationSocket: stage.to.socket }),
      source: { address: stage.source.address },
      destination: { address: stage.destination.address },
      tracer: telemetry.tracer,
    }).result;
    await telemetry.shutdown();

    assert.match(result.traceId ?? '', /^[0-9a-f]{32}$/);
    assert.equal(summaryOf(result.migration).traceId, result.traceId);
    const root = spans.find(({ name }) => name === 'migrate');
    assert.ok(root);
    assert.equal(root.parentSpanContext, undefined);
    assert.equal(root.attributes['pagewake.migration.id'], result.migrationId);
    const children = spans.filter((span) => span !== root);
    assert.deepEqual(new Set(children.map(({ name }) => name)), new Set(result.steps.map(({ step }) => step)));
    for (const child of children) {
      assert.equal(child.spanContext().traceId, result.traceId);
      assert.equal(child.parentSpanContext?.spanId, root.spanContext().spanId);
    }
  },
);
