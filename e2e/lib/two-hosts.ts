/** A migration through the command line between two hosts that are network namespaces, with a cable that can be pulled. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { MigrationSummary } from '@pagewake/orchestrator';
import { PAGEWAKE, startDestAgent, startSourceAgent } from './agents.ts';
import { budget } from './budget.ts';
import { makeHosts } from './hosts.ts';
import { temporaryFolder } from './migration.ts';
import { Program } from './processes.ts';
import { filled, startVmm } from './vmm.ts';
import type { Ended } from './whole.ts';

/** A cut takes up to twenty seconds to be noticed, by signs of life. */
const SEEN_MS = 60_000;

export interface CutCase {
  readonly source: readonly string[];
  readonly destination: readonly string[];
  /** So slow that the cut comes in the middle; undefined: the machine is. */
  readonly linkMbitPerS: number | undefined;
}

/** The cable is out from when the guest runs on the destination until the loss is seen. */
export async function migrateWithCut(t: TestContext, guest: CutCase): Promise<Ended> {
  const hosts = makeHosts();
  t.after(() => hosts.close());
  if (guest.linkMbitPerS !== undefined) hosts.limitLink(guest.linkMbitPerS);
  const folder = temporaryFolder(t);
  const source = await startSourceAgent(hosts.source);
  t.after(() => source.program.stop());
  const destination = await startDestAgent(hosts.destination, join(folder, 'vmm'));
  t.after(() => destination.program.stop());
  const from = await startVmm('source', hosts.source, folder, ['--quiet-heartbeats', ...guest.source]);
  t.after(() => from.program.stop());
  await filled(from);
  const to = await startVmm('destination', hosts.destination, folder, ['--quiet-heartbeats', ...guest.destination]);
  t.after(() => to.program.stop());
  // On the destination's host: its agent stays reachable when the cable is pulled.
  const cli = new Program('pagewake migrate', hosts.destination, [
    ...[process.execPath, PAGEWAKE, 'migrate', '--json', '--insecure-plaintext'],
    ...['--source', source.address, '--destination', destination.address],
    ...['--source-vmm', `unix:${from.controlPath}`, '--destination-vmm', `unix:${to.controlPath}`],
  ]);
  t.after(() => cli.stop());
  await cli.waitFor('the guest to run on the destination', (line) => line['phase'] === 'filling', budget(20_000));
  hosts.setLink(false);
  await cli.waitFor('the loss to be seen', (line) => line['type'] === 'interrupted', budget(SEEN_MS));
  hosts.setLink(true);
  assert.equal(await cli.exited, 0, cli.stderr);
  const result = cli.lines.findLast((line) => line['type'] === 'result');
  return {
    summary: result?.['migration'] as MigrationSummary,
    stats: await to.control.send('stats'),
    verified: await to.control.send('verify'),
    result: { dataPages: Number(result?.['dataPages']), zeroPages: Number(result?.['zeroPages']) },
  };
}
