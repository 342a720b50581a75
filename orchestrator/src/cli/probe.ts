import type { Command } from 'commander';
import Table from 'cli-table3';
import { probeCapabilities, type Capability } from '../adapters/probe.ts';
import { tiersHere, type TierHere } from '../tiers.ts';
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
      const tiers = tiersHere(capabilities);
      const text =
        json === true
          ? JSON.stringify({ capabilities, tiers }, null, 2)
          : `${capabilityTable(capabilities)}\n\n${tierTable(tiers)}`;
      cli.terminal.out(`${text}\n`);
    });
}

function capabilityTable(capabilities: readonly Capability[]): string {
  const table = new Table({ ...PLAIN_TABLE, head: ['CAPABILITY', 'HERE', 'SEEN'] });
  for (const { name, available, detail } of capabilities) table.push([name, available ? 'yes' : 'no', detail]);
  return render(table);
}

function tierTable(tiers: readonly TierHere[]): string {
  const table = new Table({ ...PLAIN_TABLE, head: ['MEMORY TIER', 'HERE', 'MODE', 'MISSING'] });
  for (const { tier, available, mode, missing } of tiers)
    table.push([tier, available ? 'yes' : 'no', available ? mode : '-', missing.join('; ') || '-']);
  return render(table);
}
