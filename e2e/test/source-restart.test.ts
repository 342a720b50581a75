/** A source agent that is killed in the middle of a migration and started again on its state folder. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { PAGEWAKE, startDestAgent, startSourceAgent } from '../lib/agents.ts';
import { LOOPBACK, temporaryFolder } from '../lib/migration.ts';
import { Program } from '../lib/processes.ts';
import { filled, startVmm } from '../lib/vmm.ts';

test('a source agent that is killed while the guest fills is started again and serves on: no page is wrong', async (t) => {
  const folder = temporaryFolder(t);
  const flags = ['--state-dir', join(folder, 'state')];
  const source = await startSourceAgent(LOOPBACK, { flags });
  t.after(() => source.program.stop());
  const destination = await startDestAgent(LOOPBACK, join(folder, 'vmm'));
  t.after(() => destination.program.stop());
  const guest = ['--quiet-heartbeats', '--ram', '256M', '--workload', '128M', '--pattern', 'random'];
  const from = await startVmm('source', LOOPBACK, folder, guest);
  t.after(() => from.program.stop());
  await filled(from);
  const to = await startVmm('destination', LOOPBACK, folder, ['--quiet-heartbeats']);
  t.after(() => to.program.stop());
  const cli = new Program('pagewake migrate', LOOPBACK, [
    ...[process.execPath, PAGEWAKE, 'migrate', '--json'],
    ...['--source', source.address, '--destination', destination.address],
    ...['--source-vmm', `unix:${from.controlPath}`, '--destination-vmm', `unix:${to.controlPath}`],
  ]);
  t.after(() => cli.stop());
  await cli.waitFor('the guest to run on the destination', (l) => l['type'] === 'phase' && l['phase'] === 'filling');
  source.program.signal('SIGKILL');
  await source.program.exited;
  await cli.waitFor('the loss to be seen', (line) => line['type'] === 'interrupted', 60_000);
  const next = await startSourceAgent(LOOPBACK, { flags, port: Number(source.address.split(':').at(-1)) });
  t.after(() => next.program.stop());
  assert.equal(await cli.exited, 0, cli.stderr);
  const verified = await to.control.send('verify');
  assert.equal(verified['wrong'], 0);
  assert.equal(verified['pages'], (256 << 20) / 4096);
});
