/**
 * `npm start`: a real, running KVM guest moves from one host to another while it works, and every page of it is verified. Two hosts as network
 * namespaces, both agents and both VMMs as processes, the command line as a user has it. The exit code tells the truth.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { MigrationSummary } from '@pagewake/orchestrator';
import { PAGEWAKE, startDestAgent, startSourceAgent } from '../lib/agents.ts';
import { Cleanup } from '../lib/cleanup.ts';
import { makeHosts, type Hosts } from '../lib/hosts.ts';
import { whyNoKvm } from '../lib/machine.ts';
import type { ReceivedSpan } from '../lib/otlp-decode.ts';
import { Program, ROOT, type JsonLine } from '../lib/processes.ts';
import { drawTree, treeOf } from '../lib/trace-tree.ts';
import { filled, startVmm, type Vmm } from '../lib/vmm.ts';
import { parseOptions, type DemoOptions } from './options.ts';
import { Progress } from './progress.ts';
import { report } from './report.ts';

/** Enough of the faults to show one, too few to slow them down. */
const TRACE_RATIO = '0.05';
const SHOWN = ['pagewake.page', 'pagewake.fault.origin', 'pagewake.install.call', 'pagewake.encoding', 'thread.id'];

const say = (text: string): void => void process.stdout.write(`${text}\n`);

function guestFlags(o: DemoOptions): { readonly source: string[]; readonly destination: string[] } {
  const both = ['--quiet-heartbeats', '--memory', o.memory, ...(o.kvm ? [] : ['--no-kvm'])];
  return {
    source: [
      ...both,
      ...['--ram', o.ram, '--workload', o.workload, '--vcpus', String(o.vcpus), '--regions', String(o.regions)],
      ...['--pattern', o.pattern, '--vcpu-rate', String(o.vcpuRate)],
    ],
    destination: [...both, ...(o.minor ? ['--register', 'missing,minor'] : [])],
  };
}

async function startReceiver(
  hosts: Hosts,
  cleanup: Cleanup,
): Promise<{ readonly address: string; readonly spans: ReceivedSpan[] }> {
  const script = join(ROOT, 'e2e/lib/otlp-receiver.ts');
  const receiver = new Program('trace receiver', hosts.source, [process.execPath, script, `${hosts.source.address}:0`]);
  cleanup.after(() => receiver.stop());
  const spans: ReceivedSpan[] = [];
  receiver.on('line', (line) => {
    if (line['event'] === 'span') spans.push(line['span'] as ReceivedSpan);
  });
  const { address } = await receiver.waitForStart('its address', (line) => line['event'] === 'listening');
  return { address: String(address), spans };
}

/** Runs `pagewake migrate` on the source's host and follows it. */
async function runMigration(
  hosts: Hosts,
  source: string,
  destination: string,
  vmms: { from: Vmm; to: Vmm },
  env: NodeJS.ProcessEnv,
) {
  const cli = new Program(
    'pagewake migrate',
    hosts.source,
    [
      ...[process.execPath, PAGEWAKE, 'migrate', '--json', '--insecure-plaintext'],
      ...['--source', source, '--destination', destination],
      ...['--source-vmm', `unix:${vmms.from.controlPath}`, '--destination-vmm', `unix:${vmms.to.controlPath}`],
    ],
    env,
  );
  const progress = new Progress(process.stdout);
  cli.on('line', (line) => {
    if (line['type'] === 'progress') progress.show(line['migration'] as MigrationSummary);
  });
  // A guest that finds a wrong page ends its VMM at once, and with it all sense in going on.
  const code = await Promise.race([cli.exited, vmms.to.program.exited.then(() => cli.stop())]);
  progress.end();
  const result = cli.lines.findLast((line) => line['type'] === 'result');
  if (code !== 0 || !result) throw new Error(`pagewake migrate ended with ${code}: ${cli.stderr.trim()}`);
  return result;
}

/** The traced fault in the middle: neither the luckiest nor the unluckiest. */
function typicalFault(spans: readonly ReceivedSpan[]): readonly string[] {
  const served = new Set(spans.filter((s) => s.name === 'serve').map((s) => s.parentSpanId));
  const answered = new Set(
    spans.filter((s) => s.name === 'request' && served.has(s.spanId)).map((s) => s.parentSpanId),
  );
  const faults = spans.filter((s) => s.name === 'fault' && answered.has(s.spanId));
  const byStall = faults.toSorted((a, b) => a.endMs - a.startMs - (b.endMs - b.startMs));
  const fault = byStall[Math.floor(byStall.length / 2)];
  return fault ? drawTree(treeOf(fault, spans), SHOWN) : [];
}

function downtimeSteps(result: JsonLine): string {
  const inBlackout = ['pause', 'scan', 'save', 'start-destination'];
  const steps = result['steps'] as { step: string; ms: number }[];
  return steps
    .filter(({ step }) => inBlackout.includes(step))
    .map(({ step, ms }) => `${step} ${ms.toFixed(0)}`)
    .join(', ');
}

async function demo(options: DemoOptions, cleanup: Cleanup): Promise<number> {
  const hosts = makeHosts(options.hosts);
  cleanup.after(() => hosts.close());
  say(
    `hosts: two ${hosts.kind === 'loopback' ? `on loopback (${hosts.reason})` : 'network namespaces joined by a veth pair'}`,
  );
  const noKvm = whyNoKvm();
  if (noKvm !== undefined) say(`no KVM: ${noKvm}; the workload runs on plain threads`);

  const folder = mkdtempSync(join(tmpdir(), 'pagewake-demo-'));
  cleanup.after(() => rmSync(folder, { recursive: true, force: true }));
  const { address: receiver, spans } = await startReceiver(hosts, cleanup);
  const env = {
    OTEL_EXPORTER_OTLP_ENDPOINT: `http://${receiver}`,
    OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc',
    PAGEWAKE_TRACE_FAULT_RATIO: TRACE_RATIO,
  };
  const source = await startSourceAgent(hosts.source, { env });
  cleanup.after(() => source.program.stop());
  const destination = await startDestAgent(hosts.destination, join(folder, 'vmm'), { env });
  cleanup.after(() => destination.program.stop());
  say(`agents: source ${source.address}, destination ${destination.address}`);

  const flags = guestFlags(options);
  const from = await startVmm('source', hosts.source, folder, flags.source);
  cleanup.after(() => from.program.stop());
  say(
    `guest: ${options.ram} of ${options.memory}, ${options.vcpus} vCPUs that fill, verify and rewrite ${options.workload}`,
  );
  await filled(from);
  const to = await startVmm('destination', hosts.destination, folder, flags.destination);
  cleanup.after(() => to.program.stop());

  const before = hosts.wireBytes();
  const result = await runMigration(hosts, source.address, destination.address, { from, to }, env);
  const after = hosts.wireBytes();

  const stats = await to.control.send('stats');
  const verified = await to.control.send('verify');
  // Orderly ends send the spans that are left.
  await destination.program.stop();
  await source.program.stop();

  const summary = result['migration'] as MigrationSummary;
  say(
    report({
      summary,
      downtimeMs: Number(result['downtimeMs']),
      downtimeSteps: downtimeSteps(result),
      stats,
      verified,
      linkBytes: before && after && after.sent + after.received - before.sent - before.received,
    }),
  );
  const tree = typicalFault(spans);
  if (tree.length > 0)
    say(`one fault, from the touch to the wake (begin, time taken):\n${tree.map((line) => `  ${line}`).join('\n')}`);
  const wrong = Number(verified['wrong']) + Number(stats['wrong']);
  say(wrong === 0 ? `\nThe guest runs on the destination; no page was lost or wrong.` : `\n${wrong} WRONG PAGES`);
  return wrong === 0 ? 0 : 1;
}

const options = parseOptions(process.argv.slice(2));
const cleanup = new Cleanup();
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => void cleanup.run().finally(() => process.exit(130)));
try {
  process.exitCode = await demo(options, cleanup);
} catch (error) {
  process.stderr.write(`npm start: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
} finally {
  await cleanup.run();
}
