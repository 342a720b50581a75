/** The one place where the orchestrator touches the native core: what this machine can do. */
import { messageOf, UserError } from '@pagewake/agent-kit';
import type { Capability } from '@pagewake/native';

export type { Capability } from '@pagewake/native';

/** Tries each thing, so it takes a moment. Loaded only here: everything else works where the addon was never built. */
export async function probeCapabilities(): Promise<readonly Capability[]> {
  const { probe } = await import('@pagewake/native').catch((error: unknown) => {
    throw new UserError(`the native part cannot be loaded: ${messageOf(error)}`, 1, { cause: error });
  });
  return probe();
}
