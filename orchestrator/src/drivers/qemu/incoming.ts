/** Where the destination's QEMU listens for the guest's device state. */
import { formatAddress, UserError } from '@pagewake/agent-kit';
import { z } from 'zod';
import type { QmpClient } from '../../qmp/client.ts';
import { QmpRefused } from '../../qmp/errors.ts';
import type { InspectLimits } from './inspect.ts';

const listeningSchema = z.object({
  status: z.string().optional(),
  'socket-address': z
    .array(
      z.object({
        type: z.string(),
        host: z.string().optional(),
        port: z.string().optional(),
        path: z.string().optional(),
      }),
    )
    .optional(),
});

/**
 * Lets it listen at `uri` (`tcp:HOST:PORT`, port 0: any that is free; `unix:PATH`).
 * @returns the uri for the source. QEMU listens once in its life, so where it does already, that is what is given.
 */
export async function listenForState(client: QmpClient, uri: string, limits: InspectLimits): Promise<string> {
  const listening = await addressOf(client, uri, limits);
  if (listening !== undefined) return listening;
  try {
    await client.execute('migrate-incoming', { uri }, undefined, limits);
  } catch (error) {
    if (!(error instanceof QmpRefused)) throw error;
    throw new UserError(
      `${client.who} cannot listen for the guest’s state at ${uri}: ${error.text}; give an address of its host that is free with --dest-migrate-address (HOST:PORT; port 0 takes any that is free)`,
      1,
      { cause: error },
    );
  }
  return (await addressOf(client, uri, limits)) ?? uri;
}

/** Undefined: it does not listen. */
async function addressOf(client: QmpClient, uri: string, limits: InspectLimits): Promise<string | undefined> {
  const { status, 'socket-address': addresses } = await client.execute('query-migrate', {}, listeningSchema, limits);
  const address = status === 'setup' ? addresses?.[0] : undefined;
  if (address?.type === 'unix' && address.path !== undefined) return `unix:${address.path}`;
  if (address?.port === undefined) return undefined;
  // The host as it was given is how the source reaches it; what QEMU says may be 0.0.0.0.
  const host = /^tcp:(?:\[([^\]]+)\]|([^:]*)):\d+$/.exec(uri);
  return `tcp:${formatAddress({ host: host?.[1] ?? host?.[2] ?? address.host ?? '', port: Number(address.port) })}`;
}
