import type { Command } from 'commander';
import { MigrationPhase } from '@pagewake/proto';
import { connectDestination } from '../agents.ts';
import { summaryOf } from '../view.ts';
import { errorOf, watchMigration } from '../watch.ts';
import type { CliContext } from './context.ts';
import { addTlsOptions, destinationOf, destinationOption, type LinkFlags } from './links.ts';
import { LiveProgress } from './live.ts';

interface WatchFlags extends LinkFlags {
  readonly json?: boolean;
}

const INTERVAL_MS = 1_000;
/** As `migrate` has. */
const LOSS_BUDGET_MS = 60_000;

export function addWatch(program: Command, cli: CliContext): void {
  const command = program
    .command('watch')
    .description('follow a migration until it ends; 0 once it is completed')
    .argument('<migration>', 'its id')
    .addOption(destinationOption())
    .option('--json', 'a JSON line for every view');
  addTlsOptions(command)
    .addHelpText('after', '\nExample:\n  $ pagewake watch 3f0c5a1e --destination 127.0.0.1:7702')
    .action(async (id: string, flags: WatchFlags) => {
      const agent = connectDestination(destinationOf(flags));
      const live = new LiveProgress(cli.terminal);
      try {
        const last = await watchMigration(agent, id, {
          intervalMs: INTERVAL_MS,
          lossBudgetMs: LOSS_BUDGET_MS,
          // An address that is mistyped is not worth a minute.
          refusalEnds: true,
          signal: cli.stop,
          onView: (view) =>
            flags.json === true ? cli.terminal.out(`${JSON.stringify(summaryOf(view))}\n`) : live.show(view),
          onLost: (error) => cli.terminal.err(`pagewake watch: ${error.message}; trying again\n`),
        });
        if (last.phase !== MigrationPhase.COMPLETED) throw errorOf(last);
      } finally {
        live.end();
        agent.close();
      }
    });
}
