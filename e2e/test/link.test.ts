/** Two hosts as network namespaces: the whole way through the command line, and a cable that is pulled. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { PAGEWAKE, startDestAgent, startSourceAgent } from '../lib/agents.ts';
import { makeHosts } from '../lib/hosts.ts';
import { temporaryFolder } from '../lib/migration.ts';
import { Program } from '../lib/processes.ts';
import { filled, startVmm } from '../lib/vmm.ts';

const probe = makeHosts();
probe.close();
const skip = probe.kind === 'loopback' ? probe.reason : false;

for (const cut of [false, true])
  test(
    cut
      ? 'a link that is cut in the middle and comes back: faults wait, the migration goes on, no page is wrong'
      : 'a guest moves between two hosts through the command line',
    { skip },
    async (t) => {
      const hosts = makeHosts();
      t.after(() => hosts.close());
      const folder = temporaryFolder(t);
      const source = await startSourceAgent(hosts.source);
      t.after(() => source.program.stop());
      const destination = await startDestAgent(hosts.destination, join(folder, 'vmm'));
      t.after(() => destination.program.stop());
      const from = await startVmm('source', hosts.source, folder, [
        '--quiet-heartbeats',
        '--ram',
        '128M',
        '--workload',
        '64M',
      ]);
      t.after(() => from.program.stop());
      await filled(from);
      const to = await startVmm('destination', hosts.destination, folder, ['--quiet-heartbeats']);
      t.after(() => to.program.stop());

      const command = [process.execPath, PAGEWAKE, 'migrate', '--json', '--insecure-plaintext'];
      const vmms = ['--source-vmm', `unix:${from.controlPath}`, '--destination-vmm', `unix:${to.controlPath}`];
      // On the destination's host: its agent stays reachable when the cable is pulled.
      const cli = new Program('pagewake migrate', hosts.destination, [
        ...command,
        ...['--source', source.address, '--destination', destination.address],
        ...vmms,
      ]);
      t.after(() => cli.stop());
      if (cut) {
        await cli.waitFor(
          'the guest to run on the destination',
          (line) => line['type'] === 'phase' && line['phase'] === 'filling',
        );
        hosts.setLink(false);
        // Nothing tells the destination that the cable is out: it notices by keepalive.
        await cli.waitFor('the loss to be seen', (line) => line['type'] === 'interrupted', 60_000);
        hosts.setLink(true);
      }
      assert.equal(await cli.exited, 0, cli.stderr);
      const verified = await to.control.send('verify');
      assert.equal(verified['wrong'], 0);
      assert.equal(verified['pages'], (128 << 20) / 4096);
    },
  );
