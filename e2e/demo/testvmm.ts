/** `npm start`: a guest of the test VMM, on KVM vCPUs where there are some. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { MigrationSummary } from '@pagewake/orchestrator';
import { PAGEWAKE, startDestAgent, startSourceAgent } from '../lib/agents.ts';
import type { Cleanup } from '../lib/cleanup.ts';
import { makeHosts, type Hosts } from '../lib/hosts.ts';
import { whyNoKvm } from '../lib/machine.ts';
import { Program, type JsonLine } from '../lib/processes.ts';
import { filled, startVmm, type Vmm } from '../lib/vmm.ts';
import type { DemoOptions } from './options.ts';
import { Progress } from './progress.ts';
import { report, stepsOf } from './report.ts';
import { hostsLine, say, verdict } from './say.ts';
import { startReceiver, typicalFault } from './trace.ts';

const IN_BLACKOUT = ['pause', 'scan', 'save', 'start-destination'];

interface Worker {
  readonly longest_gap_since_load_ms: number;
  readonly move_gap_ms?: number;
}

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

/** The longest silence of any heartbeat from the pause on, the move itself included. */
function longestGapMs(stats: JsonLine): number {
  const workers = [...(stats['vcpus'] as Worker[]), ...(stats['io'] ? [stats['io'] as Worker] : [])];
  return Math.max(...workers.flatMap((w) => [w.longest_gap_since_load_ms, w.move_gap_ms ?? 0]));
}

/** @returns how many pages were wrong */
export async function testVmmDemo(options: DemoOptions, cleanup: Cleanup): Promise<number> {
  const hosts = makeHosts(options.hosts);
  cleanup.after(() => hosts.close());
  say(hostsLine(hosts));
  const noKvm = whyNoKvm();
  if (noKvm !== undefined) say(`no KVM: ${noKvm}; the workload runs on plain threads`);

  const folder = mkdtempSync(join(tmpdir(), 'pagewake-demo-'));
  cleanup.after(() => rmSync(folder, { recursive: true, force: true }));
  const { env, spans } = await startReceiver(hosts.source, cleanup);
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
      runsOn: stats['kvm'] === true ? 'KVM vCPUs' : 'plain threads (no KVM here)',
      downtimeMs: Number(result['downtimeMs']),
      downtimeSteps: stepsOf(result, IN_BLACKOUT),
      longestGapMs: longestGapMs(stats),
      verifiedPages: Number(verified['pages']),
      wrong: Number(verified['wrong']),
      linkBytes: before && after && after.sent + after.received - before.sent - before.received,
    }),
  );
  say(typicalFault(spans));
  return verdict(Number(verified['wrong']) + Number(stats['wrong']));
}
