import { InvalidArgumentError, Option, type Command } from 'commander';
import { UserError } from '@pagewake/agent-kit';
import type { VmmDriver } from '../drivers/driver.ts';
import { SnapshotDriver } from '../drivers/snapshot.ts';
import { TestVmmDriver } from '../drivers/testvmm.ts';
import { MODES, type Mode } from '../options.ts';
import type { CliContext } from './context.ts';
import { addTlsOptions } from './links.ts';
import { addMigrateQemu } from './migrate-qemu.ts';
import { addRunOptions, runMigration, type RunFlags } from './run.ts';

interface MigrateFlags extends RunFlags {
  readonly sourceVmm?: string;
  readonly snapshot?: string;
  readonly state?: string;
  readonly regions?: number;
  readonly destinationVmm?: string;
  readonly stateDir?: string;
  readonly mode: Mode;
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
    // What follows the name of a subcommand is the subcommand's.
    .enablePositionalOptions();
  addRunOptions(command)
    .option('--source-vmm <unix:path>', 'control socket of the testvmm that runs the guest')
    .option('--destination-vmm <unix:path>', 'control socket of the testvmm that is to run it')
    .option('--snapshot <file>', 'memory image to start from instead of --source-vmm, on the source agent’s host')
    .option('--state <file>', 'the state that belongs to --snapshot')
    .option('--regions <n>', 'the snapshot is that many regions of equal size; default: 1', wholeNumber)
    .option(
      '--state-dir <dir>',
      'where the paused guest’s state is put meanwhile; default: a folder of its own in TMPDIR',
    )
    .addOption(
      new Option('--mode <mode>', 'auto: post-copy where the memory can be trapped').choices(MODES).default('auto'),
    );
  addTlsOptions(command)
    .addHelpText('after', EXAMPLES)
    .action((flags: MigrateFlags) => runMigration(driverOf(flags), flags, cli));
  addMigrateQemu(command, cli);
}

function wholeNumber(text: string): number {
  if (!/^[1-9]\d{0,3}$/.test(text)) throw new InvalidArgumentError('a whole number from 1 to 9999 is needed.');
  return Number(text);
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
