/** Migrations between QEMUs that do not end well: what is refused is refused before anything happens to the guest, and what fails says where the guest is. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Backend, Qemu } from '../lib/qemu.ts';
import { QemuHosts, whyNoQemuMigration, type Failure } from '../lib/qemu-migration.ts';
import { before, proxyQmp, without } from '../lib/qmp-proxy.ts';

const skip = whyNoQemuMigration() ?? false;
/** Runs its firmware, which finds nothing to boot: enough to be refused. */
const NO_GUEST = { memoryMiB: 64 } as const;

async function statusOf(qemu: Qemu): Promise<string> {
  return ((await qemu.qmp.execute('query-status')) as { status: string }).status;
}

async function assertRunsOn(qemu: Qemu): Promise<void> {
  assert.equal(await statusOf(qemu), 'running');
  await qemu.serial.nextHeartbeat();
  assert.equal((await qemu.serial.verify()).wrong, 0);
}

function assertRefused(failure: Failure, message: RegExp): void {
  assert.equal(failure.outcome, 'failed-untouched', JSON.stringify(failure));
  assert.match(failure.message, message);
}

/** On the source; the destination is as it should be, but in the last row. */
const REFUSED: readonly {
  readonly what: string;
  readonly backend: Backend;
  readonly memoryMiB: number;
  readonly message: RegExp;
}[] = [
  { what: 'a memfd', backend: 'memfd', memoryMiB: 64, message: /memory-backend-memfd.*memory-backend-file/ },
  { what: 'no file', backend: 'ram', memoryMiB: 64, message: /memory-backend-ram.*memory-backend-file/ },
  { what: 'a file of its own', backend: 'private-file', memoryMiB: 64, message: /share=on/ },
  { what: 'of another size', backend: 'file', memoryMiB: 128, message: /64 MiB|67108864/ },
];

test(
  'RAM that cannot be moved is refused with what to use instead, and nothing happens to the guest',
  { skip },
  async (t) => {
    const hosts = await QemuHosts.make(t);
    // Refused before it is told anything, so it serves for all of them.
    const to = await hosts.await(NO_GUEST);
    for (const { what, backend, memoryMiB, message } of REFUSED)
      await t.test(what, async () => {
        const from = await hosts.start({ backend, memoryMiB, role: 'source', host: hosts.hosts.source });
        assertRefused(await hosts.migrate(from, to).failure(), message);
        assert.equal(await statusOf(from), 'running');
      });
  },
);

test('a destination that touches all of its RAM at its start ends with a line that says so', { skip }, async (t) => {
  const hosts = await QemuHosts.make(t);
  await assert.rejects(hosts.await({ ...NO_GUEST, prealloc: true }), /pagewake-shim: .*prealloc/);
});

test(
  'one guest outlives a destination that lacks x-ignore-shared and destinations that die before the switchover, and moves in the end',
  { skip },
  async (t) => {
    const hosts = await QemuHosts.make(t);
    const machine = { memoryMiB: 192, guest: { memMiB: 64, pagesPerS: 5000 } };
    const from = await hosts.boot(machine);

    const lacking = await hosts.await(machine);
    const destinationQmp = await proxyQmp(t, lacking.qemu.qmpPath, without('x-ignore-shared'));
    const unequal = await hosts.migrate(from, lacking, { destinationQmp }).failure();
    assert.equal(unequal.outcome, 'failed-source-runs', JSON.stringify(unequal));
    await assertRunsOn(from);
    await lacking.qemu.stop();

    // Before the source's guest stops, and when it has, the agents are told, and only the device state is missing.
    for (const command of ['migrate', 'migrate-continue']) {
      const dying = await hosts.await(machine);
      const sourceQmp = await proxyQmp(
        t,
        from.qmpPath,
        before(command, () => dying.qemu.stop()),
      );
      const cut = await hosts.migrate(from, dying, { sourceQmp }).failure();
      assert.equal(cut.outcome, 'failed-source-runs', JSON.stringify(cut));
      assert.equal(cut.code, 3);
      await assertRunsOn(from);
    }

    const to = await hosts.await(machine);
    await hosts.migrate(from, to).result();
    assert.equal((await to.qemu.serial.verify()).wrong, 0);
  },
);

test(
  'a destination QEMU that dies after the switchover takes its guest with it, and the source is never resumed',
  { skip },
  async (t) => {
    const hosts = await QemuHosts.make(t);
    hosts.hosts.limitLink(200);
    const machine = { memoryMiB: 192, guest: { memMiB: 96, pagesPerS: 2000 } };
    const from = await hosts.boot(machine);
    const to = await hosts.await(machine);
    const run = hosts.migrate(from, to);
    await run.moves(to.qemu);
    await to.qemu.serial.nextHeartbeat();
    await to.qemu.stop();
    const lost = await run.failure();
    assert.equal(lost.outcome, 'failed-guest-lost', JSON.stringify(lost));
    assert.equal(lost.code, 4);
    assert.notEqual(await statusOf(from), 'running');
  },
);
