/**
 * Destination agents that are killed in the middle of a migration and started again. The guest goes on, and every page of it is right.
 */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { migrate, summaryOf, TestVmmDriver } from '@pagewake/orchestrator';
import { startSourceAgent } from '../lib/agents.ts';
import { whyNoKvm } from '../lib/machine.ts';
import { LOOPBACK, temporaryFolder, vmm } from '../lib/migration.ts';
import { MortalDest } from '../lib/restart.ts';
import { filled } from '../lib/vmm.ts';

const SMALL = ['--ram', '128M', '--workload', '96M', '--vcpu-rate', '20000'];

interface Case {
  readonly name: string;
  readonly source: readonly string[];
  readonly destination?: readonly string[];
  readonly skip?: string | undefined;
}

const CASES: readonly Case[] = [
  { name: 'memfd, 2 vCPUs', source: [...SMALL, '--vcpus', '2'] },
  {
    name: 'memfd, MISSING and MINOR',
    source: [...SMALL, '--vcpus', '2'],
    destination: ['--register', 'missing,minor'],
  },
  { name: 'anonymous memory', source: [...SMALL, '--memory', 'anon'], destination: ['--memory', 'anon'] },
  {
    name: 'a balloon that gives pages back',
    source: [...SMALL, '--balloon-area', '16M'],
    destination: ['--balloon', '3000'],
  },
  {
    name: 'stage-2 faults asked for on the channel',
    source: [...SMALL, '--vcpus', '2'],
    destination: ['--stage2', 'exit'],
    skip: whyNoKvm(),
  },
];

async function start(t: TestContext, { source, destination = [] }: Pick<Case, 'source' | 'destination'>) {
  const folder = temporaryFolder(t);
  const sourceAgent = await startSourceAgent(LOOPBACK);
  t.after(() => sourceAgent.program.stop());
  const dest = await MortalDest.start(LOOPBACK, join(folder, 'vmm'));
  t.after(() => dest.stop());
  const from = await vmm(t, 'source', folder, source);
  await filled(from);
  const to = await vmm(t, 'destination', folder, ['--handover', 'keep', ...destination]);
  const migration = migrate({
    driver: new TestVmmDriver({ sourceSocket: from.controlPath, destinationSocket: to.controlPath }),
    source: { address: sourceAgent.address },
    destination: { address: dest.address },
  });
  return { folder, sourceAgent, dest, from, to, migration };
}

for (const { name, skip, ...guest } of CASES)
  test(`killed again and again while it fills, the agent goes on: ${name}`, { skip: skip ?? false }, async (t) => {
    const { folder, dest, to, migration } = await start(t, guest);
    await to.program.waitFor('the guest to run', (line) => line['event'] === 'resumed');
    let over = false;
    const result = migration.result.finally(() => (over = true));
    for (let death = 0; death < 4; death++) {
      await sleep(20 + death * 35);
      if (over) break;
      await dest.kill();
      await dest.startAgain();
    }
    const { migration: view } = await result;
    assert.ok(dest.deaths > 0);
    const summary = summaryOf(view);
    assert.equal(summary.phase, 'completed');
    const verified = await to.control.send('verify');
    assert.equal(verified['wrong'], 0);
    assert.equal((await to.control.send('stats'))['wrong'], 0);
    assert.equal(await to.program.stop(), 0);
    await dest.stop();
    assert.ok(
      dest.lines.some((line) => String(line['msg']).startsWith('goes on')),
      'no agent died while it filled',
    );
    // Nothing is left that another agent would take up.
    const left = readdirSync(join(folder, 'vmm/.state'));
    assert.deepEqual(left.toSorted(), [`${view.migrationId}.json`, 'lock'].toSorted());
  });
