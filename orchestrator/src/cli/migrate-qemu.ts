import { InvalidArgumentError, type Command } from 'commander';
import { formatAddress, parseAddress, UserError } from '@pagewake/agent-kit';
import { QemuDriver } from '../drivers/qemu.ts';
import { parseQmpAddress } from '../qmp/address.ts';
import type { CliContext } from './context.ts';
import { addTlsOptions, destinationOf } from './links.ts';
import { addRunOptions, runMigration, type RunFlags } from './run.ts';

interface QemuFlags extends RunFlags {
  readonly sourceQmp?: string;
  readonly destQmp?: string;
  readonly destMigrateAddress?: string;
  readonly vmmSocketName?: string;
  readonly quitSource?: boolean;
}

const EXAMPLES = `
Before it the destination's QEMU is started like the source's, with a RAM file of its own, -incoming defer, and the shim.

Example:
  $ pagewake migrate qemu --vm web1 --source 192.0.2.1:7701 --destination 192.0.2.2:7702 --tls-ca fleet.pem \\
      --source-qmp unix:/run/vm/web1-source.qmp --dest-qmp tcp:192.0.2.2:4445 --dest-migrate-address 192.0.2.2:4444`;

export function addMigrateQemu(migrate: Command, cli: CliContext): void {
  const command = migrate.command('qemu').description('move the guest of an unmodified QEMU to another QEMU');
  addRunOptions(command)
    .option('--source-qmp <address>', 'QMP of the QEMU that runs the guest: unix:PATH or tcp:HOST:PORT')
    .option('--dest-qmp <address>', 'QMP of the QEMU that is to run it')
    .option(
      '--dest-migrate-address <host:port>',
      'where the destination’s QEMU takes the devices’ state from the source’s; port 0: any that is free; default: the host of --destination, port 0',
    )
    .option(
      '--vmm-socket-name <name>',
      'file name of the agent’s socket in the destination’s PAGEWAKE_SOCKET; default: the VM’s name and .sock',
    )
    .option('--hand-over-timeout <s>', 'how long to wait for the destination’s QEMU; default: 30', seconds)
    .option('--quit-source', 'end the source’s QEMU once the destination has every page');
  addTlsOptions(command)
    .addHelpText('after', EXAMPLES)
    .action((flags: QemuFlags) => runMigration(driverOf(flags), flags, cli));
}

function seconds(text: string): number {
  if (!/^[1-9]\d{0,4}$/.test(text))
    throw new InvalidArgumentError('a whole number of seconds from 1 to 99999 is needed.');
  return Number(text);
}

function driverOf(flags: QemuFlags): QemuDriver {
  return new QemuDriver({
    sourceQmp: qmp(flags.sourceQmp, '--source-qmp'),
    destinationQmp: qmp(flags.destQmp, '--dest-qmp'),
    migrateUri: migrateUri(flags),
    vmmSocketName: flags.vmmSocketName,
    quitSource: flags.quitSource,
  });
}

function qmp(address: string | undefined, flag: string): string {
  if (address === undefined) throw new UserError(`${flag} is needed: unix:PATH or tcp:HOST:PORT of a QMP socket`, 2);
  return parseQmpAddress(address, flag).text;
}

/** Whoever reaches the agent there most likely reaches a QEMU beside it. */
function migrateUri(flags: QemuFlags): string {
  const { destMigrateAddress: given } = flags;
  const address =
    given === undefined
      ? { host: parseAddress(destinationOf(flags).address, '--destination').host, port: 0 }
      : parseAddress(given, '--dest-migrate-address');
  return `tcp:${formatAddress(address)}`;
}
