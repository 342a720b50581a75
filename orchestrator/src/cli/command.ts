/** Every command but the agents. */
import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { addCompletion } from './complete.ts';
import type { CliContext } from './context.ts';
import { addControls } from './control.ts';
import { errorLine, EXIT, EXIT_HELP, exitCodeOf } from './exit.ts';
import { addMigrate } from './migrate.ts';
import { addProbe } from './probe.ts';
import { addList, addStatus } from './status.ts';
import type { Terminal } from './terminal.ts';
import { addWatch } from './watch.ts';

const EXAMPLES = `
${EXIT_HELP}

Example, all on one host:
  $ pagewake serve-source --listen 127.0.0.1:7701
  $ pagewake serve-dest --listen 127.0.0.1:7702 --vmm-socket-dir /tmp/pagewake
  $ pagewake migrate --source 127.0.0.1:7701 --destination 127.0.0.1:7702 \\
      --source-vmm unix:/tmp/source.sock --destination-vmm unix:/tmp/destination.sock`;

/** Never rejects. */
export async function command(argv: readonly string[], terminal: Terminal, stop: AbortSignal): Promise<number> {
  const cli: CliContext = { terminal, stop, exitCode: EXIT.done };
  const program = build(cli);
  try {
    if (argv.length === 0) {
      terminal.err(program.helpInformation());
      return EXIT.usage;
    }
    await program.parseAsync([...argv], { from: 'user' });
    return cli.exitCode;
  } catch (error) {
    const which = nameOf(program, argv);
    if (error instanceof CommanderError) {
      if (error.exitCode === 0) return EXIT.done;
      const text = error.message.replace(/^error: /, '').replaceAll('\n', ' ');
      terminal.err(`${which}: ${text}; see ${which} --help\n`);
      return EXIT.usage;
    }
    terminal.err(`${errorLine(which, error)}\n`);
    return exitCodeOf(error, stop.aborted);
  }
}

/** "pagewake migrate qemu": as far as the words are commands. */
function nameOf(program: Command, argv: readonly string[]): string {
  let [command, name] = [program, program.name()];
  for (const word of argv) {
    const next = command.commands.find((sub) => sub.name() === word);
    if (next === undefined) break;
    [command, name] = [next, `${name} ${word}`];
  }
  return name;
}

function build(cli: CliContext): Command {
  const program = new Command('pagewake')
    .description('Moves running VMs: the guest first, its memory after.')
    .version(version(), '-V, --version')
    .exitOverride()
    .configureOutput({ writeOut: (text) => cli.terminal.out(text), writeErr: () => undefined })
    .showHelpAfterError(false)
    // A subcommand's subcommand, and what follows it, is its own.
    .enablePositionalOptions()
    .addHelpText('after', EXAMPLES);
  // Before any command is added: a command takes its parent's settings when it is made.
  program.command('serve-source').description('run the source agent: serves the memory of paused guests');
  program
    .command('serve-dest')
    .description('run the destination agent: owns a guest’s memory and fetches what is missing');
  addMigrate(program, cli);
  addStatus(program, cli);
  addList(program, cli);
  addWatch(program, cli);
  addControls(program, cli);
  addProbe(program, cli);
  addCompletion(program, cli);
  return program;
}

function version(): string {
  const manifest: unknown = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));
  const found =
    typeof manifest === 'object' && manifest !== null && 'version' in manifest ? manifest.version : undefined;
  return typeof found === 'string' ? found : 'unknown';
}
