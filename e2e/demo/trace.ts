/** One fault of a migration as its spans tell of it: who collects them, and which one is shown. */
import { join } from 'node:path';
import type { Scope } from '../lib/cleanup.ts';
import type { Host } from '../lib/hosts.ts';
import type { ReceivedSpan } from '../lib/otlp-decode.ts';
import { Program, ROOT } from '../lib/processes.ts';
import { drawTree, treeOf } from '../lib/trace-tree.ts';

/** Enough of the faults to show one, too few to slow them down. */
const TRACE_RATIO = '0.05';
const SHOWN = ['pagewake.page', 'pagewake.fault.origin', 'pagewake.install.call', 'pagewake.encoding', 'thread.id'];

export interface Receiver {
  /** For whoever is to be traced. */
  readonly env: Readonly<Record<string, string>>;
  readonly spans: readonly ReceivedSpan[];
}

export async function startReceiver(host: Host, cleanup: Scope): Promise<Receiver> {
  const script = join(ROOT, 'e2e/lib/otlp-receiver.ts');
  const receiver = new Program('trace receiver', host, [process.execPath, script, `${host.address}:0`]);
  cleanup.after(() => receiver.stop());
  const spans: ReceivedSpan[] = [];
  receiver.on('line', (line) => {
    if (line['event'] === 'span') spans.push(line['span'] as ReceivedSpan);
  });
  const { address } = await receiver.waitForStart('its address', (line) => line['event'] === 'listening');
  const env = {
    OTEL_EXPORTER_OTLP_ENDPOINT: `http://${String(address)}`,
    OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc',
    PAGEWAKE_TRACE_FAULT_RATIO: TRACE_RATIO,
  };
  return { env, spans };
}

/** The traced fault in the middle: neither the luckiest nor the unluckiest. Empty where none was traced to its end. */
export function typicalFault(spans: readonly ReceivedSpan[]): string {
  const served = new Set(spans.filter((s) => s.name === 'serve').map((s) => s.parentSpanId));
  const answered = new Set(
    spans.filter((s) => s.name === 'request' && served.has(s.spanId)).map((s) => s.parentSpanId),
  );
  const faults = spans.filter((s) => s.name === 'fault' && answered.has(s.spanId));
  const byStall = faults.toSorted((a, b) => a.endMs - a.startMs - (b.endMs - b.startMs));
  const fault = byStall[Math.floor(byStall.length / 2)];
  if (!fault) return '';
  const lines = drawTree(treeOf(fault, spans), SHOWN).map((line) => `  ${line}\n`);
  return `one fault, from the touch to the wake (begin, time taken):\n${lines.join('')}`;
}
