import type { Command } from 'commander';
import { UserError } from '@pagewake/agent-kit';
import type { SourceVm } from '@pagewake/proto';
import { SourceVmState } from '@pagewake/proto';
import { connectDestination, connectSource } from '../agents.ts';
import { summaryOf, type MigrationSummary } from '../view.ts';
import type { CliContext } from './context.ts';
import { addTlsOptions, destinationOf, destinationOption, sourceOf, sourceOption, type LinkFlags } from './links.ts';
import { migrationDetails, migrationsTable, sizeOf, vmsTable } from './tables.ts';
import { MIGRATION_ARGUMENT, pick } from './which.ts';

interface StatusFlags extends LinkFlags {
  readonly json?: boolean;
}

const EXAMPLES = `
Examples:
  $ pagewake status --destination 127.0.0.1:7702 --source 127.0.0.1:7701
  $ pagewake status 3f0c --destination 127.0.0.1:7702`;

export function addStatus(program: Command, cli: CliContext): void {
  const command = program
    .command('status')
    .description('migrations on a destination and VMs on a source, or one migration in full')
    .argument('[migration]', MIGRATION_ARGUMENT)
    .addOption(destinationOption())
    .addOption(sourceOption())
    .option('--json', 'as JSON');
  addTlsOptions(command)
    .addHelpText('after', EXAMPLES)
    .action(async (id: string | undefined, flags: StatusFlags) => {
      if (id !== undefined) await showOne(id, flags, cli);
      else await showAll(flags, cli);
    });
}

/** What `status` says without an id, under the name that one looks for first. */
export function addList(program: Command, cli: CliContext): void {
  const command = program
    .command('list')
    .description('the migrations of a destination agent, the VMs of a source agent, or both')
    .addOption(destinationOption())
    .addOption(sourceOption())
    .option('--json', 'as JSON');
  addTlsOptions(command)
    .addHelpText('after', '\nExample:\n  $ pagewake list --destination 127.0.0.1:7702 --source 127.0.0.1:7701')
    .action((flags: StatusFlags) => showAll(flags, cli));
}

async function showOne(id: string, flags: StatusFlags, cli: CliContext): Promise<void> {
  const migrations = await listMigrations(flags, cli.stop);
  const one = pick(migrations, id);
  if (one === undefined) {
    throw new UserError(
      `there is no migration ${id} on ${flags.destination ?? ''}; pagewake status lists those that are`,
    );
  }
  cli.terminal.out(flags.json === true ? `${JSON.stringify(one, null, 2)}\n` : `${migrationDetails(one)}\n`);
}

async function showAll(flags: StatusFlags, cli: CliContext): Promise<void> {
  if (flags.destination === undefined && flags.source === undefined) {
    throw new UserError('give --destination, --source, or both: host:port of the agents', 2);
  }
  const migrations = flags.destination === undefined ? undefined : await listMigrations(flags, cli.stop);
  const vms = flags.source === undefined ? undefined : await listVms(flags, cli.stop);
  if (flags.json === true) {
    cli.terminal.out(`${JSON.stringify({ migrations, vms: vms?.map(vmObject) }, null, 2)}\n`);
    return;
  }
  const parts = [
    ...(migrations === undefined ? [] : [migrationsTable(migrations)]),
    ...(vms === undefined ? [] : [vmsTable(vms)]),
  ];
  cli.terminal.out(`${parts.join('\n\n')}\n`);
}

async function listMigrations(flags: LinkFlags, signal: AbortSignal): Promise<readonly MigrationSummary[]> {
  const agent = connectDestination(destinationOf(flags));
  try {
    const { migrations } = await agent.call((c, o) => c.list({}, o), { signal });
    return migrations.map(summaryOf);
  } finally {
    agent.close();
  }
}

async function listVms(flags: LinkFlags, signal: AbortSignal): Promise<readonly SourceVm[]> {
  const agent = connectSource(sourceOf(flags));
  try {
    return (await agent.call((c, o) => c.list({}, o), { signal })).vms;
  } finally {
    agent.close();
  }
}

function vmObject(vm: SourceVm): Record<string, unknown> {
  return {
    vmId: vm.vmId,
    generation: vm.generation,
    state: (SourceVmState[vm.state] ?? 'unknown').toLowerCase(),
    sizeBytes: sizeOf(vm),
    regions: vm.regions.map(({ pageSizeBytes, pageCount }) => ({ pageSizeBytes, pageCount })),
    destinationId: vm.destinationId,
    pagesServed: Number(vm.pagesServed),
    payloadBytes: Number(vm.payloadBytes),
  };
}
