/** Which migration is meant: ids are long, and enough of the beginning is as good as the whole. */
import { UserError } from '@pagewake/agent-kit';
import type { DestinationAgent } from '../agents.ts';
import { summaryOf, type MigrationSummary } from '../view.ts';
import { EXIT } from './exit.ts';

/** Help text of the argument, for every command that has it. */
export const MIGRATION_ARGUMENT = 'its id, or enough of its beginning';
const MOST_NAMED = 8;

/** Undefined: none has this id or begins with it. Throws UserError that names the candidates where several do. */
export function pick(migrations: readonly MigrationSummary[], given: string): MigrationSummary | undefined {
  const exact = migrations.find(({ migrationId }) => migrationId === given);
  if (exact !== undefined) return exact;
  const [first, ...others] = migrations.filter(({ migrationId }) => migrationId.startsWith(given));
  if (first === undefined || others.length === 0) return first;
  const all = [first, ...others];
  const named = all.slice(0, MOST_NAMED).map(({ migrationId, vmId, phase }) => `${migrationId} (${vmId}, ${phase})`);
  const rest = all.length > MOST_NAMED ? ` and ${String(all.length - MOST_NAMED)} more` : '';
  const message = `${given === '' ? 'an empty id' : given} is the beginning of ${String(all.length)} migrations; give more of it: ${named.join(', ')}${rest}`;
  throw new UserError(message, EXIT.usage);
}

/** The whole id. One that the agent does not list is given back as it is: the agent says best that it knows no such migration. */
export async function wholeId(agent: DestinationAgent, given: string, signal: AbortSignal): Promise<string> {
  const { migrations } = await agent.call((c, o) => c.list({}, o), { signal });
  return pick(migrations.map(summaryOf), given)?.migrationId ?? given;
}
