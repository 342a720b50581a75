/** What every kind of `migrate` has in common: options, and one migration from its driver to its report. */
import type { Command } from 'commander';
import { createLogger, startTelemetry } from '@pagewake/agent-kit';
import type { VmmDriver } from '../drivers/driver.ts';
import { migrate } from '../migrate.ts';
import type { MigrateOptions, Mode } from '../options.ts';
import type { CliContext } from './context.ts';
import { destinationOf, destinationOption, sourceOf, sourceOption, type LinkFlags } from './links.ts';
import { JsonReport, TextReport } from './report.ts';

export interface RunFlags extends LinkFlags {
  readonly vm?: string;
  readonly id?: string;
  readonly sourceFromDestination?: string;
  readonly mode?: Mode;
  readonly handOverTimeout?: number;
  readonly json?: boolean;
}

export function addRunOptions(command: Command): Command {
  return command
    .option('--vm <name>', 'the guest; default: what the source VMM calls it')
    .addOption(sourceOption())
    .addOption(destinationOption())
    .option(
      '--source-from-destination <host:port>',
      'the source agent as the destination reaches it; default: --source',
    )
    .option('--id <migration>', 'a name for the migration; default: the destination chooses')
    .option('--json', 'every event as a JSON line on standard output, the last one the result');
}

export async function runMigration(driver: VmmDriver, flags: RunFlags, cli: CliContext): Promise<void> {
  const options: MigrateOptions = {
    driver,
    source: sourceOf(flags),
    destination: destinationOf(flags),
    sourceFromDestination: flags.sourceFromDestination,
    vmId: flags.vm,
    migrationId: flags.id,
    mode: flags.mode,
    handOverMs: flags.handOverTimeout === undefined ? undefined : flags.handOverTimeout * 1000,
    signal: cli.stop,
  };
  cli.terminal.mustFinish();
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
