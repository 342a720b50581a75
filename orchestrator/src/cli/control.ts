/** Commands that change a migration under way, or what a source holds. */
import type { Command } from 'commander';
import type { Migration } from '@pagewake/proto';
import { connectDestination, connectSource, type DestinationAgent } from '../agents.ts';
import { phaseName, summaryOf } from '../view.ts';
import type { CliContext } from './context.ts';
import { addTlsOptions, destinationOf, destinationOption, sourceOf, sourceOption, type LinkFlags } from './links.ts';
import { MIGRATION_ARGUMENT, wholeId } from './which.ts';

interface ControlFlags extends LinkFlags {
  readonly force?: boolean;
  readonly json?: boolean;
}

type Answer = Promise<{ readonly migration?: Migration | undefined }>;

export function addControls(program: Command, cli: CliContext): void {
  addPauseAndResume(program, cli);
  addCancel(program, cli);
  addRelease(program, cli);
}

async function apply(
  given: string,
  flags: ControlFlags,
  cli: CliContext,
  ask: (agent: DestinationAgent, migrationId: string) => Answer,
): Promise<void> {
  const agent = connectDestination(destinationOf(flags));
  try {
    const id = await wholeId(agent, given, cli.stop);
    const { migration } = await ask(agent, id);
    if (flags.json === true) {
      const summary = migration === undefined ? { migrationId: id } : summaryOf(migration);
      cli.terminal.out(`${JSON.stringify(summary, null, 2)}\n`);
    } else {
      cli.terminal.out(`${id}: ${migration === undefined ? 'done' : phaseName(migration.phase)}\n`);
    }
  } finally {
    agent.close();
  }
}

function migrationCommand(program: Command, name: string, description: string): Command {
  const command = program
    .command(name)
    .description(description)
    .argument('<migration>', MIGRATION_ARGUMENT)
    .addOption(destinationOption())
    .option('--json', 'the migration as JSON');
  return addTlsOptions(command).addHelpText(
    'after',
    `\nExample:\n  $ pagewake ${name} 3f0c5a1e --destination 127.0.0.1:7702`,
  );
}

function addPauseAndResume(program: Command, cli: CliContext): void {
  const { stop: signal } = cli;
  migrationCommand(program, 'pause', 'stop prefetching; faults are served on').action(
    (given: string, f: ControlFlags) =>
      apply(given, f, cli, (agent, migrationId) => agent.call((c, o) => c.pause({ migrationId }, o), { signal })),
  );
  migrationCommand(program, 'resume', 'end a pause, or try a lost source again at once').action(
    (given: string, f: ControlFlags) =>
      apply(given, f, cli, (agent, migrationId) => agent.call((c, o) => c.resume({ migrationId }, o), { signal })),
  );
}

function addCancel(program: Command, cli: CliContext): void {
  migrationCommand(program, 'cancel', 'give a migration up; harmless while the guest still runs on the source')
    .option('--force', 'also later: the guest on the destination is lost')
    .action((given: string, flags: ControlFlags) =>
      apply(given, flags, cli, (agent, migrationId) =>
        agent.call((c, o) => c.cancel({ migrationId, force: flags.force === true }, o), { signal: cli.stop }),
      ),
    );
}

function addRelease(program: Command, cli: CliContext): void {
  const command = program
    .command('release')
    .description('make a source agent forget a VM, after a migration that `migrate` did not see the end of')
    .argument('<vm>', 'its name')
    .addOption(sourceOption())
    .option('--force', 'also while a destination still reads: its guest then waits for ever for what it lacks')
    .option('--json', 'as JSON');
  addTlsOptions(command)
    .addHelpText('after', '\nExample:\n  $ pagewake release demo --source 127.0.0.1:7701')
    .action(async (vmId: string, flags: ControlFlags) => {
      const agent = connectSource(sourceOf(flags));
      try {
        await agent.call((c, o) => c.release({ vmId, generation: 0, force: flags.force === true }, o), {
          signal: cli.stop,
        });
        cli.terminal.out(flags.json === true ? `${JSON.stringify({ vmId, released: true })}\n` : `${vmId}: released\n`);
      } finally {
        agent.close();
      }
    });
}
