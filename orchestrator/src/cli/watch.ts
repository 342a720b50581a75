import type { Command } from 'commander';
import { MigrationPhase } from '@pagewake/proto';
import { connectDestination } from '../agents.ts';
import { summaryOf } from '../view.ts';
import { errorOf, watchMigration } from '../watch.ts';
import type { CliContext } from './context.ts';
import { EXIT } from './exit.ts';
import { addTlsOptions, destinationOf, destinationOption, type LinkFlags } from './links.ts';
import { LiveProgress } from './live.ts';
import { MIGRATION_ARGUMENT, wholeId } from './which.ts';

interface WatchFlags extends LinkFlags {
  readonly json?: boolean;
}

const INTERVAL_MS = 1_000;
/** As `migrate` has. */
const LOSS_BUDGET_MS = 60_000;

export function addWatch(program: Command, cli: CliContext): void {
  const command = program
    .command('watch')
    .description('follow a migration until it ends; 0 once it is completed; Ctrl-C ends only the watch (130)')
    .argument('<migration>', MIGRATION_ARGUMENT)
    .addOption(destinationOption())
    .option('--json', 'a JSON line for every view');
  addTlsOptions(command)
    .addHelpText('after', '\nExample:\n  $ pagewake watch 3f0c5a1e --destination 127.0.0.1:7702')
    .action(async (given: string, flags: WatchFlags) => {
      const agent = connectDestination(destinationOf(flags));
      let id = given;
      let heard = false;
      const live = new LiveProgress(cli.terminal);
      try {
        id = await wholeId(agent, given, cli.stop);
        const last = await watchMigration(agent, id, {
          intervalMs: INTERVAL_MS,
          lossBudgetMs: LOSS_BUDGET_MS,
          // An address that is mistyped is not worth a minute.
          refusalEnds: true,
          signal: cli.stop,
          onView: (view) => {
            heard = true;
            if (flags.json === true) cli.terminal.out(`${JSON.stringify(summaryOf(view))}\n`);
            else live.show(view);
          },
          onLost: (error) => cli.terminal.err(`pagewake watch: ${error.message}; trying again\n`),
        });
        if (last.phase !== MigrationPhase.COMPLETED) throw errorOf(last);
      } catch (error) {
        if (!cli.stop.aborted) throw error;
        live.end();
        // To stop looking ends nothing else.
        const rest = heard ? `migration ${id} goes on` : `nothing was heard of migration ${id}`;
        cli.terminal.err(`pagewake watch: not watched any longer; ${rest}\n`);
        cli.exitCode = EXIT.interrupted;
      } finally {
        live.end();
        agent.close();
      }
    });
}
