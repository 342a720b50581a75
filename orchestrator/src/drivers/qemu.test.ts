/** The QEMU driver with two real QEMUs and no agents: their RAM is copied by the test where the agents would bring it. */
import assert from 'node:assert/strict';
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { startTestQemu, whyNoQemu, type TestQemu } from '../../test/qemu.ts';
import { parseQmpAddress } from '../qmp/address.ts';
import { QmpClient } from '../qmp/client.ts';
import { ControlLost, GuestNeverRan } from './driver.ts';
import { QemuDriver } from './qemu.ts';
import { listenForState } from './qemu/incoming.ts';
import { capabilitiesOf, inspect, statusOf } from './qemu/inspect.ts';

const REAL = { timeout: 60_000, skip: whyNoQemu() ?? false };
const never = new AbortController().signal;
const nothing = (): void => undefined;

const driverOf = (from: TestQemu, to: TestQemu, migrateUri = 'tcp:127.0.0.1:0'): QemuDriver =>
  new QemuDriver({ sourceQmp: `unix:${from.qmpPath}`, destinationQmp: `unix:${to.qmpPath}`, migrateUri });

/** Between the driver's own connections, as QEMU serves one at a time. */
async function ask<T>({ qmpPath }: TestQemu, work: (client: QmpClient) => Promise<T>): Promise<T> {
  const client = await QmpClient.connect(parseQmpAddress(`unix:${qmpPath}`, 'qmp'), 'test QEMU');
  try {
    return await work(client);
  } finally {
    client.close();
  }
}

for (const waits of [false, true]) {
  test(
    `a guest moves${waits ? ' to a QEMU that was started with -S' : ''}: STOP, then RESUME, and capabilities are as before`,
    REAL,
    async (t) => {
      const from = await startTestQemu(t);
      const to = await startTestQemu(t, { incoming: true, args: waits ? ['-S'] : [] });
      const driver = driverOf(from, to);
      t.after(() => driver.close());
      await driver.check(never);
      const { memory, earlyHandOver } = await driver.describeMemory(never);
      assert.equal(memory.kind?.case === 'file' && memory.kind.value.regions?.[0]?.path, from.ramFile);
      assert.deepEqual(earlyHandOver?.regionNames, [to.ramFile]);
      await driver.arm(never);
      let stops = 0;
      const stopped = await driver.pauseSource(() => stops++, never);
      assert.equal(stops, 1);
      copyFileSync(from.ramFile, to.ramFile);
      const resumed = await driver.startDestination(undefined, '', never);
      assert.ok((resumed.atMs ?? 0) >= (stopped.atMs ?? Infinity));
      await driver.close();
      assert.equal(await ask(to, (client) => statusOf(client)), 'running');
      assert.equal(await ask(from, (client) => statusOf(client)), 'postmigrate');
      for (const side of [from, to]) {
        assert.equal((await ask(side, (client) => capabilitiesOf(client))).get('x-ignore-shared'), false);
      }
    },
  );
}

test('a source that is told to run again does, from every point before the switchover', REAL, async (t) => {
  const from = await startTestQemu(t);
  for (const paused of [false, true]) {
    const driver = driverOf(from, await startTestQemu(t, { incoming: true }));
    await driver.check(never);
    await driver.arm(never);
    if (paused) await driver.pauseSource(nothing, never);
    await driver.resumeSource();
    await driver.close();
    assert.equal(await ask(from, (client) => statusOf(client)), 'running');
  }
});

test('a destination that listens since an attempt before is used again', REAL, async (t) => {
  const [from, to] = [await startTestQemu(t), await startTestQemu(t, { incoming: true })];
  const first = driverOf(from, to);
  await first.check(never);
  await first.arm(never);
  await first.close();
  const second = driverOf(from, to);
  t.after(() => second.close());
  await second.check(never);
  await second.arm(never);
  await second.pauseSource(nothing, never);
  copyFileSync(from.ramFile, to.ramFile);
  await second.startDestination(undefined, '', never);
});

test('a destination that dies when the source stands still: never ran, or for its agent to say', REAL, async (t) => {
  const [from, to] = [await startTestQemu(t), await startTestQemu(t, { incoming: true })];
  const driver = driverOf(from, to);
  t.after(() => driver.close());
  await driver.check(never);
  await driver.arm(never);
  await driver.pauseSource(nothing, never);
  await to.child.kill('SIGKILL');
  // The one where its end is seen before the device state is let go, the other where it is seen behind.
  await assert.rejects(
    driver.startDestination(undefined, '', never),
    (error) => error instanceof GuestNeverRan || error instanceof ControlLost,
  );
  await driver.resumeSource();
  assert.equal(await driver.sourceState(), 'running');
});

test('a destination that has ended, before or since, is said with where its last words are', REAL, async (t) => {
  const [from, to] = [await startTestQemu(t), await startTestQemu(t, { incoming: true })];
  const driver = driverOf(from, to);
  t.after(() => driver.close());
  await driver.check(never);
  await driver.arm(never);
  await to.child.kill('SIGKILL');
  const lastWords =
    /its last line on standard error says why, a line of the shim begins with pagewake-shim: \(libvirt: \S+\)/;
  await assert.rejects(driver.pauseSource(nothing, never), lastWords);
  const late = driverOf(from, to);
  t.after(() => late.close());
  await driver.close();
  await assert.rejects(late.check(never), lastWords);
});

test('an address where another program listens is said with what to give instead', REAL, async (t) => {
  const [from, to, other] = [
    await startTestQemu(t),
    await startTestQemu(t, { incoming: true }),
    await startTestQemu(t, { incoming: true }),
  ];
  const uri = await ask(other, (client) => listenForState(client, 'tcp:127.0.0.1:0', {}));
  const driver = driverOf(from, to, uri);
  t.after(() => driver.close());
  await driver.check(never);
  await assert.rejects(driver.arm(never), /cannot listen .* in use; .*--dest-migrate-address/);
});

test(
  'what a QEMU is made of is seen: NUMA backends in order, without one that nothing uses; devices; the default RAM',
  REAL,
  async (t) => {
    const folder = mkdtempSync('/dev/shm/pagewake-');
    t.after(() => rmSync(folder, { recursive: true, force: true }));
    const backends = ['ram2', 'ram10', 'spare'].flatMap((id) => [
      '-object',
      `memory-backend-file,id=${id},size=16M,share=on,mem-path=${join(folder, id)}`,
    ]);
    const nodes = ['-numa', 'node,memdev=ram10', '-numa', 'node,memdev=ram2'];
    const args = [...backends, ...nodes, '-device', 'virtio-balloon-pci', '-name', 'web1'];
    const numa = await startTestQemu(t, { machine: 'q35', backend: '', args });
    const view = await ask(numa, (client) => inspect(client, {}));
    assert.deepEqual(
      view.backends.map(({ id, sizeBytes }) => [id, sizeBytes]),
      [
        ['ram2', 16 << 20],
        ['ram10', 16 << 20],
      ],
    );
    assert.equal(view.name, 'web1');
    assert.ok(view.parts.includes('virtio-balloon-pci'));
    const plain = await startTestQemu(t, { machine: 'pc', backend: '' });
    const own = await ask(plain, (client) => inspect(client, {}));
    assert.deepEqual(
      own.backends.map(({ type, share }) => [type, share]),
      [['memory-backend-ram', false]],
    );
  },
);
