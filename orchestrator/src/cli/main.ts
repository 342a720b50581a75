/** `pagewake`: from argv to exit code. */
import { untilSignalled } from './context.ts';
import { ProcessTerminal, type Terminal } from './terminal.ts';

/** Arguments as after `pagewake`. Never rejects. */
export async function main(argv: readonly string[], terminal: Terminal = new ProcessTerminal()): Promise<number> {
  const [name, ...rest] = argv;
  // The agents have flags, signals and errors of their own; `help serve-source` goes the same way.
  if (name !== undefined && isAgent(name)) {
    // Guests hang on it.
    if (!rest.includes('--help') && !rest.includes('-h')) terminal.mustFinish();
    return serve(name, rest);
  }
  if (name === 'help' && rest[0] !== undefined && isAgent(rest[0])) return serve(rest[0], ['--help']);
  const { command } = await import('./command.ts');
  return untilSignalled((stop) => command(argv, terminal, stop));
}

type AgentName = 'serve-source' | 'serve-dest';
const isAgent = (name: string): name is AgentName => name === 'serve-source' || name === 'serve-dest';

/** Loaded only where one is started: an agent takes in native code that the other commands do without, and keeps for weeks what it has loaded. */
async function serve(name: AgentName, argv: readonly string[]): Promise<number> {
  if (name === 'serve-source') return (await import('@pagewake/source-agent/main')).serveSource(argv);
  return (await import('@pagewake/dest-agent/main')).serveDest(argv);
}
