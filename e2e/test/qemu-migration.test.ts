/**
 * A Linux guest in an unmodified QEMU, migrated with its memory by pagewake. The guest verifies every page that it touches, and all of them in the
 * end; what it says on its serial console is the judge.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openEcho } from '../lib/echo.ts';
import type { Qemu } from '../lib/qemu.ts';
import { QemuHosts, whyNoQemuMigration, type Awaiting, type Result } from '../lib/qemu-migration.ts';
import { differingPages } from '../lib/ram-files.ts';
import { timelineOf } from '../lib/timeline.ts';

const skip = whyNoQemuMigration() ?? false;
const PAGE_BYTES = 4096;
const pagesOf = (mib: number): number => (mib << 20) / PAGE_BYTES;

const GUEST_MIB = { memMiB: 96, zerosMiB: 8 } as const;

/** What must hold of every migration that ends well. */
async function assertWhole({ summary }: Result, to: Qemu, ramMiB: number): Promise<void> {
  assert.equal(summary.phase, 'completed');
  assert.equal(summary.error, null);
  assert.equal(summary.mode, 'post-copy');
  assert.equal(summary.pages.total, pagesOf(ramMiB));
  assert.equal(summary.pages.present, summary.pages.total);
  assert.equal(summary.badFrames, 0);
  const verified = await to.serial.verify();
  assert.equal(verified.wrong, 0);
  assert.equal(verified.pages, pagesOf(GUEST_MIB.memMiB + GUEST_MIB.zerosMiB));
}

/** Each heartbeat once, in order, across both consoles: the guest went on, and did not start anew. */
function assertOneGuest(from: Qemu, to: Qemu): void {
  const numbers = timelineOf(from.serial, to.serial).map(({ number }) => number);
  assert.deepEqual(
    numbers,
    numbers.map((_, index) => (numbers[0] ?? 0) + index),
  );
}

test(
  'RAM on the destination is the source’s, byte for byte, but for what the guest has written since',
  { skip },
  async (t) => {
    const hosts = await QemuHosts.make(t);
    const machine = { memoryMiB: 192, guest: { ...GUEST_MIB, pagesPerS: 100 } };
    const from = await hosts.boot(machine);
    const to = await hosts.await(machine);
    await hosts.migrate(from, to).result();
    await to.qemu.qmp.execute('stop');
    const differing = differingPages(from.ramFiles[0] ?? '', to.qemu.ramFiles[0] ?? '');
    // The guest's worker writes 100 pages a second; its kernel, its heartbeat and its stacks a few more.
    assert.ok(differing < 1500, `${differing} pages differ`);
    await to.qemu.qmp.execute('cont');
    assert.equal((await to.qemu.serial.verify()).wrong, 0);
  },
);

test(
  'there and back, with a disk under load, a TCP connection from a third place, and a balloon in use',
  { skip },
  async (t) => {
    const hosts = await QemuHosts.make(t, { guestNet: true, bothWays: true });
    const { net } = hosts;
    if (!net) return t.skip('the guest has no network');
    const machine = {
      memoryMiB: 256,
      balloon: true,
      disk: { path: hosts.disk('disk', 32) },
      tap: net.taps.source,
      guest: { ...GUEST_MIB, pagesPerS: 10_000, disk: 'flat-out' as const, net: net.guest },
    };
    const home = await hosts.boot(machine);
    const echo = await openEcho(net);
    t.after(() => echo.program.stop());
    await echo.answers(5);
    const move = async (from: Qemu, to: Awaiting): Promise<void> => {
      const diskBefore = timelineOf(from.serial).at(-1)?.diskBlocks ?? 0;
      const run = hosts.migrate(from, to);
      await run.moves(to.qemu);
      // Pages given back, and taken, while theirs are on their way. Its kernel and its work need about 180 MiB.
      await to.qemu.qmp.execute('balloon', { value: 208 << 20 });
      await assertWhole(await run.result(), to.qemu, machine.memoryMiB);
      await to.qemu.qmp.execute('balloon', { value: machine.memoryMiB << 20 });
      await echo.answers(5);
      assertOneGuest(from, to.qemu);
      const { disk } = await to.qemu.serial.verify();
      assert.ok(disk > diskBefore, 'the disk is written to and read from on the destination');
      await from.stop();
    };
    const away = await hosts.await(machine, 'destination');
    await move(home, away);
    await move(away.qemu, await hosts.await(machine, 'source'));
  },
);

test('q35 with VGA, two NUMA nodes with a backend each, four vCPUs, under QEMU’s sandbox', { skip }, async (t) => {
  const hosts = await QemuHosts.make(t);
  const machine = {
    memoryMiB: 256,
    ...{ machine: 'q35' as const, vga: true, numaNodes: 2, cpus: 4, sandbox: true },
    guest: { ...GUEST_MIB, workers: 4, fill: 'text' as const, pagesPerS: 3000 },
  };
  const from = await hosts.boot(machine);
  const to = await hosts.await(machine);
  await assertWhole(await hosts.migrate(from, to).result(), to.qemu, machine.memoryMiB);
  assertOneGuest(from, to.qemu);
});

test(
  'a destination agent that is killed in mid-fill, with a balloon in use, and started again goes on where it was',
  { skip },
  async (t) => {
    const hosts = await QemuHosts.make(t);
    hosts.hosts.limitLink(200);
    const machine = { memoryMiB: 256, balloon: true, guest: { ...GUEST_MIB, pagesPerS: 2000 } };
    const from = await hosts.boot(machine);
    const to = await hosts.await(machine);
    const run = hosts.migrate(from, to);
    await run.moves(to.qemu);
    await run.reaches('filling');
    // Page after page is given back, and each waits until an agent has heard of it.
    await to.qemu.qmp.execute('balloon', { value: 208 << 20 });
    await to.qemu.qmp.waitFor('BALLOON_CHANGE');
    await hosts.killDestinationAgent('destination');
    await hosts.restartDestinationAgent('destination');
    await assertWhole(await run.result(), to.qemu, machine.memoryMiB);
    assertOneGuest(from, to.qemu);
  },
);
