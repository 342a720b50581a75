/** `npm start -- --qemu`: a Linux guest in an unmodified QEMU, moved to another QEMU by `pagewake migrate qemu`. */
import { existsSync } from 'node:fs';
import type { MigrationSummary } from '@pagewake/orchestrator';
import type { Cleanup } from '../lib/cleanup.ts';
import { QemuHosts } from '../lib/qemu-migration.ts';
import { SHIM, whyNoRamFiles } from '../lib/qemu.ts';
import { longestGapMs, timelineOf } from '../lib/timeline.ts';
import { accelOf } from '../qemu/accel.ts';
import { qemuLab } from '../qemu/install.ts';
import { sizeBytes, type DemoOptions } from './options.ts';
import { Progress } from './progress.ts';
import { report, stepsOf } from './report.ts';
import { hostsLine, say, verdict } from './say.ts';
import { startReceiver, typicalFault, type Receiver } from './trace.ts';

/** From the source's STOP to the destination's RESUME. */
const IN_BLACKOUT = ['settle', 'scan', 'start-destination'];
const MIB = 2 ** 20;

/** @returns how many pages were wrong */
export async function qemuDemo(options: DemoOptions, cleanup: Cleanup): Promise<number> {
  const lab = qemuLab();
  const why = lab.reason ?? whyNoRamFiles() ?? (existsSync(SHIM) ? undefined : 'the shim is not built: npm run setup');
  if (lab.reason !== undefined || why !== undefined) throw new Error(`the demo with QEMU cannot be had here: ${why}`);
  const accel = options.kvm ? accelOf(lab.parts) : 'tcg';
  const { promise: started, resolve: onReceiver } = Promise.withResolvers<Receiver>();
  const set = await QemuHosts.make(cleanup, {
    hosts: options.hosts,
    agentEnv: async ({ source }) => {
      const receiver = await startReceiver(source, cleanup);
      onReceiver(receiver);
      return receiver.env;
    },
  });
  const receiver = await started;
  const { hosts, agents } = set;
  say(hostsLine(hosts));
  if (accel === 'tcg')
    say('no KVM for stock guests here, or none wanted: QEMU runs the guest on TCG, several times slower');
  say(`agents: source ${agents.source.address}, destination ${agents.destination.address}`);

  const machine = {
    memoryMiB: sizeBytes(options.ram) / MIB,
    cpus: options.vcpus,
    accel,
    guest: {
      memMiB: sizeBytes(options.workload) / MIB,
      fill: options.pattern === 'text' ? ('text' as const) : ('random' as const),
      workers: options.vcpus,
      pagesPerS: options.vcpuRate,
    },
  };
  say(
    `guest: Linux in QEMU ${lab.parts.version}, ${options.ram}, ${options.vcpus} vCPUs that fill, verify and rewrite ${options.workload}`,
  );
  const from = await set.boot(machine);
  const to = await set.await(machine);

  const before = hosts.wireBytes();
  const run = set.migrate(from, to, { env: receiver.env });
  const progress = new Progress(process.stdout);
  run.cli.on('line', (line) => {
    if (line['type'] === 'progress') progress.show(line['migration'] as MigrationSummary);
  });
  const { summary, downtimeMs, line } = await run.result().finally(() => progress.end());
  const after = hosts.wireBytes();

  const verified = await to.qemu.serial.verify();
  const beats = timelineOf(from.serial, to.qemu.serial);
  const first = beats[0]?.number ?? 0;
  const missed = (beats.at(-1)?.number ?? 0) - first + 1 - beats.length;
  // Orderly ends send the spans that are left.
  await agents.destination.program.stop();
  await agents.source.program.stop();
  say(
    report({
      summary,
      runsOn: `${accel === 'kvm' ? 'KVM' : 'TCG'}, QEMU ${lab.parts.version}`,
      downtimeMs,
      downtimeSteps: stepsOf(line, IN_BLACKOUT),
      longestGapMs: longestGapMs(beats),
      verifiedPages: verified.pages,
      wrong: verified.wrong,
      linkBytes: before && after && after.sent + after.received - before.sent - before.received,
      more: [['heartbeats', `${beats.length} of one guest on both consoles, ${missed} missed`]],
    }),
  );
  say(typicalFault(receiver.spans));
  return verdict(verified.wrong + missed, 'WRONG PAGES OR MISSED HEARTBEATS');
}
