/** What is refused, end to end: a typed error that names what is wrong, and nothing lost. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { migrate, MigrationError, TestVmmDriver, type Mode } from '@pagewake/orchestrator';
import { whyNoKvm } from '../lib/machine.ts';
import { migrateGuest, startPair, vmm } from '../lib/migration.ts';
import { filled, type Vmm } from '../lib/vmm.ts';

const SMALL = ['--ram', '64M', '--workload', '32M', '--vcpu-rate', '20000'];

async function failureOf(options: Parameters<typeof migrate>[0]): Promise<MigrationError> {
  const error: unknown = await migrate(options).result.then(
    () => assert.fail('the migration succeeded'),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof MigrationError, String(error));
  return error;
}

/** The guest works on: its pages become more. */
async function assertRuns(source: Vmm): Promise<void> {
  const workOf = async (): Promise<number> => {
    const { vcpus } = await source.control.send('stats');
    return (vcpus as { work: number }[]).reduce((sum, vcpu) => sum + vcpu.work, 0);
  };
  const before = await workOf();
  for (let waitedMs = 0; (await workOf()) <= before; waitedMs += 50) {
    assert.ok(waitedMs < 10_000, 'the guest stands still');
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

test(
  'post-copy of a guest_memfd that cannot be trapped is refused, names what is missing, and the source runs on',
  { skip: whyNoKvm() ?? false },
  async (t) => {
    const pair = await startPair(t);
    const from = await vmm(t, 'source', pair.folder, [...SMALL, '--memory', 'guest_memfd']);
    await filled(from);
    const to = await vmm(t, 'destination', pair.folder, ['--memory', 'guest_memfd']);
    const mode: Mode = 'post-copy';
    const error = await failureOf({
      driver: new TestVmmDriver({ sourceSocket: from.controlPath, destinationSocket: to.controlPath }),
      source: { address: pair.source.address },
      destination: { address: pair.destination.address },
      mode,
    });
    assert.equal(error.reasonName, 'NOT_TRAPPABLE');
    assert.match(
      error.message,
      /userfaultfd registration of a guest_memfd mapping; write\(\) to a guest_memfd; KVM userfault/,
    );
    assert.equal(error.outcome, 'failed-source-runs');
    await assertRuns(from);
  },
);

test('a source agent that is not there: the guest never stops', async (t) => {
  const pair = await startPair(t);
  const from = await vmm(t, 'source', pair.folder, SMALL);
  await filled(from);
  const to = await vmm(t, 'destination', pair.folder, []);
  await pair.source.program.stop();
  const error = await failureOf({
    driver: new TestVmmDriver({ sourceSocket: from.controlPath, destinationSocket: to.controlPath }),
    source: { address: pair.source.address },
    destination: { address: pair.destination.address },
  });
  assert.equal(error.outcome, 'failed-untouched');
  assert.equal(error.reasonName, 'SOURCE_UNREACHABLE');
  await assertRuns(from);
});

test('a VM that has moved cannot be started again from its source', async (t) => {
  const pair = await startPair(t);
  const { result } = await migrateGuest(t, pair, { source: SMALL });
  const { connectDestination } = await import('@pagewake/orchestrator');
  const destination = connectDestination({ address: pair.destination.address });
  t.after(() => destination.close());
  const request = {
    migrationId: 'again',
    vmId: result.vmId,
    sourceAddress: pair.source.address,
    generation: result.generation,
    token: randomBytes(32),
  };
  // Prepared, because only the VMM's memory makes the source be opened; there it ends.
  const { migration } = await destination.call((c, o) => c.start(request, o));
  assert.ok(migration);
  const to = await vmm(t, 'destination', pair.folder, []);
  const from = await vmm(t, 'source', pair.folder, SMALL);
  await filled(from);
  await from.control.send('pause');
  await from.control.send(`save ${pair.folder}/state`);
  await assert.rejects(to.control.send(`load ${pair.folder}/state ${migration.vmmSocket}`));
  const told = await to.program.waitFor('why it failed', (line) => line['event'] === 'failed');
  assert.match(JSON.stringify(told), /UNKNOWN_VM/);
  const after = await destination.call((c, o) => c.get({ migrationId: 'again' }, o));
  assert.equal(after.migration?.error?.message.includes(result.vmId), true);
});
