import type { Command } from 'commander';
import Table from 'cli-table3';
import { probeCapabilities } from '../adapters/probe.ts';
import type { CliContext } from './context.ts';
import { PLAIN_TABLE, render } from './tables.ts';

export function addProbe(program: Command, cli: CliContext): void {
  program
    .command('probe')
    .description('what this machine can do for a destination or a source, found out by trying')
    .option('--json', 'as JSON')
    .addHelpText('after', '\nExample:\n  $ pagewake probe')
    .action(async ({ json }: { readonly json?: boolean }) => {
      const capabilities = await probeCapabilities();
      if (json === true) {
        cli.terminal.out(`${JSON.stringify({ capabilities }, null, 2)}\n`);
        return;
      }
      const table = new Table({ ...PLAIN_TABLE, head: ['CAPABILITY', 'HERE', 'SEEN'] });
      for (const { name, available, detail } of capabilities) table.push([name, available ? 'yes' : 'no', detail]);
      cli.terminal.out(`${render(table)}\n`);
    });
}
