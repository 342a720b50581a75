/** Every fault from the touch through both hosts to the wake: one tree, received over real OTLP. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { migrateGuest, startPair } from '../lib/migration.ts';
import type { ReceivedSpan } from '../lib/otlp-decode.ts';
import { startReceiver } from '../lib/otlp-receiver.ts';
import { treeOf, type SpanNode } from '../lib/trace-tree.ts';

/** Clocks of one machine are read by two processes through different paths; what they say may differ by a little. */
const CLOCK_SLACK_MS = 2;

function names(node: SpanNode): string[] {
  return node.children.map((child) => child.span.name);
}

function child(node: SpanNode, name: string): SpanNode {
  const found = node.children.find((c) => c.span.name === name);
  assert.ok(found, `${node.span.name} has no ${name}, but ${names(node).join(', ')}`);
  return found;
}

function assertInside(inner: ReceivedSpan, outer: ReceivedSpan): void {
  assert.ok(inner.startMs >= outer.startMs - CLOCK_SLACK_MS, `${inner.name} begins before ${outer.name}`);
  assert.ok(inner.endMs <= outer.endMs + CLOCK_SLACK_MS, `${inner.name} ends after ${outer.name}`);
  assert.ok(inner.endMs >= inner.startMs, `${inner.name} ends before it begins`);
}

test('a fault’s spans from both agents form one tree with sane times', async (t) => {
  const spans: ReceivedSpan[] = [];
  const { address, server } = await startReceiver('127.0.0.1:0', (span) => spans.push(span));
  t.after(() => server.forceShutdown());
  const env = {
    OTEL_EXPORTER_OTLP_ENDPOINT: `http://${address}`,
    OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc',
    OTEL_BSP_SCHEDULE_DELAY: '200',
    PAGEWAKE_TRACE_FAULT_RATIO: '1',
  };
  const startedMs = Date.now();
  const pair = await startPair(t, { source: { env }, destination: { env } });
  const { summary } = await migrateGuest(t, pair, {
    source: ['--ram', '64M', '--workload', '32M', '--vcpu-rate', '5000'],
  });
  // Orderly ends flush what is left.
  assert.equal(await pair.destination.program.stop(), 0);
  assert.equal(await pair.source.program.stop(), 0);

  const roots = spans.filter((s) => s.name === 'migration');
  assert.equal(roots.length, 1);
  const [root] = roots;
  assert.ok(root);
  assert.equal(root.service, 'pagewake-dest-agent');
  assert.equal(root.traceId, summary.traceId);
  assert.equal(new Set(spans.map((s) => s.traceId)).size, 1, 'one trace a migration');

  const tree = treeOf(root, spans);
  const faults = tree.children.filter((c) => c.span.name === 'fault');
  assert.equal(
    faults.length,
    summary.faults.fromSource,
    'with a ratio of 1 every fault that needed the source is traced',
  );
  assert.ok(faults.length > 0);
  for (const fault of faults) {
    assert.deepEqual(names(fault).toSorted(), ['install', 'queue', 'request', 'verify']);
    assert.equal(fault.span.service, 'pagewake-dest-agent');
    const request = child(fault, 'request');
    const serve = child(request, 'serve');
    assert.equal(serve.span.service, 'pagewake-source-agent');
    assert.deepEqual(names(serve).toSorted(), ['encode', 'read']);
    for (const part of fault.children) assertInside(part.span, fault.span);
    assertInside(serve.span, request.span);
    for (const part of serve.children) assertInside(part.span, serve.span);
    assert.ok(fault.span.startMs >= startedMs - CLOCK_SLACK_MS && fault.span.endMs <= Date.now() + CLOCK_SLACK_MS);
    assert.equal(fault.span.attributes['pagewake.vm.id'], summary.vmId);
    assert.equal(serve.span.attributes['pagewake.page'], fault.span.attributes['pagewake.page']);
  }
});
