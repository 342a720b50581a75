/** Migration capabilities: set for this migration, and put back afterwards. */
import type { QmpClient } from '../../qmp/client.ts';
import { QmpClosed, QmpUnreachable } from '../../qmp/errors.ts';
import { capabilitiesOf, type InspectLimits } from './inspect.ts';
import type { QmpLink } from './links.ts';

export type Wanted = Readonly<Record<string, boolean>>;

/**
 * What another migration may have left on, and what would change the order of this one. `return-path`: the source would wait for a last word
 * of the destination, and run its guest again by itself where that is lost, while the destination's runs.
 */
const OFF: Wanted = Object.fromEntries(
  [
    ...['postcopy-ram', 'postcopy-preempt', 'postcopy-blocktime', 'return-path', 'switchover-ack', 'x-colo'],
    ...['multifd', 'mapped-ram', 'zero-copy-send', 'background-snapshot', 'release-ram', 'xbzrle', 'auto-converge'],
    'dirty-limit',
  ].map((name) => [name, false]),
);

export const SOURCE_CAPABILITIES: Wanted = {
  ...OFF,
  events: true,
  'x-ignore-shared': true,
  'pause-before-switchover': true,
};

export const DESTINATION_CAPABILITIES: Wanted = { ...OFF, events: true, 'x-ignore-shared': true };

/** @returns what was otherwise before, to be given to `putBack` */
export async function setCapabilities(client: QmpClient, wanted: Wanted, limits: InspectLimits): Promise<Wanted> {
  const before = await capabilitiesOf(client, limits);
  const changed = Object.entries(wanted).filter(([name, state]) => before.has(name) && before.get(name) !== state);
  await apply(client, Object.fromEntries(changed), limits);
  return Object.fromEntries(changed.map(([name, state]) => [name, !state]));
}

/**
 * A later migration of QEMU's own must not leave out the RAM because this one did. A QEMU that is gone needs nothing.
 */
export async function putBack(link: QmpLink, before: Wanted): Promise<void> {
  if (Object.keys(before).length === 0) return;
  try {
    await apply(await link.client(), before, {});
  } catch (error) {
    if (error instanceof QmpClosed || error instanceof QmpUnreachable) return;
    throw error;
  }
}

async function apply(client: QmpClient, wanted: Wanted, limits: InspectLimits): Promise<void> {
  const capabilities = Object.entries(wanted).map(([capability, state]) => ({ capability, state }));
  if (capabilities.length > 0) await client.execute('migrate-set-capabilities', { capabilities }, undefined, limits);
}
