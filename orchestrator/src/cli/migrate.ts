import { InvalidArgumentError, Option, type Command } from 'commander';
import { createLogger, startTelemetry, UserError } from '@pagewake/agent-kit';
import type { VmmDriver } from '../drivers/driver.ts';
import { SnapshotDriver } from '../drivers/snapshot.ts';
import { TestVmmDriver } from '../drivers/testvmm.ts';
import { migrate } from '../migrate.ts';
import { MODES, type MigrateOptions, type Mode } from '../options.ts';
import type { CliContext } from './context.ts';
import { addTlsOptions, destinationOf, destinationOption, sourceOf, sourceOption, type LinkFlags } from './links.ts';
import { JsonReport, TextReport } from './report.ts';

interface MigrateFlags extends LinkFlags {
  readonly vm?: string;
  readonly id?: string;
  readonly sourceFromDestination?: string;
  readonly sourceVmm?: string;
  readonly snapshot?: string;
  readonly state?: string;
  readonly regions?: number;
  readonly destinationVmm?: string;
  readonly stateDir?: string;
  readonly mode: Mode;
  readonly json?: boolean;
}

const EXAMPLES = `
Examples:
  $ pagewake migrate --source 127.0.0.1:7701 --destination 127.0.0.1:7702 \\
      --source-vmm unix:/run/vm/source.sock --destination-vmm unix:/run/vm/destination.sock
  $ pagewake migrate --vm demo --source 10.0.0.1:7701 --destination 10.0.0.2:7702 --tls-ca fleet.pem \\
      --snapshot /var/lib/vm/demo.mem --state /var/lib/vm/demo.mem.state --destination-vmm unix:/run/vm/demo.sock`;

export function addMigrate(program: Command, cli: CliContext): void {
  const command = program
    .command('migrate')
    .description('move a running guest: pause, hand over, run on the destination while its memory follows')
    .option('--vm <name>', 'the guest; default: what the source VMM calls it')
    .addOption(sourceOption())
    .addOption(destinationOption())
    .option(
      '--source-from-destination <host:port>',
      'the source agent as the destination reaches it; default: --source',
    )
    .option('--source-vmm <unix:path>', 'control socket of the testvmm that runs the guest')
    .option('--destination-vmm <unix:path>', 'control socket of the testvmm that is to run it')
    .option('--snapshot <file>', 'memory image to start from instead of --source-vmm, on the source agent’s host')
    .option('--state <file>', 'the state that belongs to --snapshot')
    .option('--regions <n>', 'the snapshot is that many regions of equal size; default: 1', wholeNumber)
    .option(
      '--state-dir <dir>',
      'where the paused guest’s state is put meanwhile; default: a folder of its own in TMPDIR',
    )
    .option('--id <migration>', 'a name for the migration; default: the destination chooses')
    .addOption(
      new Option('--mode <mode>', 'auto: post-copy where the memory can be trapped').choices(MODES).default('auto'),
    )
    .option('--json', 'every event as a JSON line on standard output, the last one the result');
  addTlsOptions(command)
    .addHelpText('after', EXAMPLES)
    .action((flags: MigrateFlags) => run(flags, cli));
}

function wholeNumber(text: string): number {
  if (!/^[1-9]\d{0,3}$/.test(text)) throw new InvalidArgumentError('a whole number from 1 to 9999 is needed.');
  return Number(text);
}

async function run(flags: MigrateFlags, cli: CliContext): Promise<void> {
  const options: MigrateOptions = {
    driver: driverOf(flags),
    source: sourceOf(flags),
    destination: destinationOf(flags),
    sourceFromDestination: flags.sourceFromDestination,
    vmId: flags.vm,
    migrationId: flags.id,
    mode: flags.mode,
    signal: cli.stop,
  };
  const log = createLogger('pagewake migrate', 'warn');
  const telemetry = await startTelemetry({ serviceName: 'pagewake-orchestrator', log });
  const report = flags.json === true ? new JsonReport(cli.terminal) : new TextReport(cli.terminal);
  try {
    const migration = migrate({ ...options, tracer: telemetry.tracer });
    for await (const event of migration) report.event(event);
    report.done(await migration.result);
  } catch (error) {
    report.failed(error);
    throw error;
  } finally {
    await telemetry.shutdown();
  }
}

function driverOf(flags: MigrateFlags): VmmDriver {
  if (flags.destinationVmm === undefined) {
    throw new UserError('--destination-vmm is needed: unix:PATH of the VMM that is to run the guest', 2);
  }
  const destinationSocket = socketPath(flags.destinationVmm, '--destination-vmm');
  if ((flags.sourceVmm === undefined) === (flags.snapshot === undefined)) {
    throw new UserError('give either --source-vmm (a running guest) or --snapshot with --state (files)', 2);
  }
  if (flags.sourceVmm !== undefined) {
    const sourceSocket = socketPath(flags.sourceVmm, '--source-vmm');
    return new TestVmmDriver({ sourceSocket, destinationSocket, stateDir: flags.stateDir });
  }
  if (flags.state === undefined) throw new UserError('--snapshot needs --state: the file that was saved with it', 2);
  if (flags.vm === undefined)
    throw new UserError('--snapshot needs --vm: a file does not say what its guest is called', 2);
  return new SnapshotDriver({
    memoryFile: flags.snapshot ?? '',
    stateFile: flags.state,
    destinationSocket,
    regions: flags.regions,
  });
}

function socketPath(address: string, flag: string): string {
  const path = /^unix:(.+)$/.exec(address)?.[1];
  if (path === undefined) {
    throw new UserError(`${flag}: "${address}" is not a VMM's address; give unix:PATH of its control socket`, 2);
  }
  return path;
}
