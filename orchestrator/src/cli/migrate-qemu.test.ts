/** `pagewake migrate qemu` with real QEMUs and agents, as far as it comes without the shim: nothing of the source is touched for good. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import {
  pagewake,
  startDestination,
  startPagewake,
  startSource,
  temporaryFolder,
  whyNoMigrations,
} from '../../test/programs.ts';
import { startTestQemu, whyNoQemu, type TestQemu } from '../../test/qemu.ts';
import { statusOf } from '../drivers/qemu/inspect.ts';
import { parseQmpAddress } from '../qmp/address.ts';
import { QmpClient } from '../qmp/client.ts';

const WHOLE = { timeout: 90_000, skip: whyNoQemu() ?? whyNoMigrations() ?? false };

interface QemuStage {
  readonly from: TestQemu;
  readonly to: TestQemu;
  readonly socket: string;
  readonly source: string;
  readonly args: readonly string[];
}

async function setStage(t: TestContext): Promise<QemuStage> {
  const folder = temporaryFolder(t);
  const [source, destination, from, to] = await Promise.all([
    startSource(t),
    startDestination(t, folder),
    startTestQemu(t),
    startTestQemu(t, { incoming: true }),
  ]);
  const agents = ['--source', source.address, '--destination', destination.address];
  const qmp = ['--source-qmp', `unix:${from.qmpPath}`, '--dest-qmp', `unix:${to.qmpPath}`];
  return {
    ...{ from, to, source: source.address, socket: join(folder, 'vmm', 'web1.sock') },
    args: ['migrate', 'qemu', '--vm', 'web1', ...agents, ...qmp],
  };
}

async function stateOf({ qmpPath }: TestQemu): Promise<string> {
  const client = await QmpClient.connect(parseQmpAddress(`unix:${qmpPath}`, 'qmp'), 'test QEMU');
  try {
    return await statusOf(client);
  } finally {
    client.close();
  }
}

async function assertNothingLeft(t: TestContext, { from, to, source }: QemuStage): Promise<void> {
  assert.equal(await stateOf(from), 'running');
  assert.equal(await stateOf(to), 'inmigrate');
  const { stdout } = await pagewake(t, ['list', '--source', source, '--json']);
  assert.deepEqual(JSON.parse(stdout), { vms: [] });
}

test(
  'a destination QEMU without the shim: exit 3, and the error names the socket and how QEMU is started',
  WHOLE,
  async (t) => {
    const stage = await setStage(t);
    const { code, stderr } = await pagewake(t, [...stage.args, '--hand-over-timeout', '1']);
    assert.equal(code, 3, stderr);
    assert.match(
      stderr,
      /^pagewake migrate qemu: BAD_HANDSHAKE: no VMM has handed over its memory at .*web1\.sock within 1 s/,
    );
    assert.ok(stderr.includes(`PAGEWAKE_SOCKET=${stage.socket} and PAGEWAKE_RAM=${stage.to.ramFile}?`), stderr);
    assert.match(stderr, /; the guest runs on on the source$/m);
    assert.equal(stderr.trim().split('\n').length, 1, stderr);
    await assertNothingLeft(t, stage);
  },
);

test(
  'told to stop while it waits for the destination QEMU: exit 130, and everything is as before',
  WHOLE,
  async (t) => {
    const stage = await setStage(t);
    const migration = startPagewake(t, [...stage.args, '--json']);
    await migration.line(/"type":"progress".*"phase":"awaiting-vmm"/);
    migration.signal('SIGINT');
    const { code, stderr } = await migration.exited;
    assert.equal(code, 130, stderr);
    await assertNothingLeft(t, stage);
  },
);

test('QEMUs that do not fit are refused before an agent hears of them: exit 1', WHOLE, async (t) => {
  const stage = await setStage(t);
  const small = await startTestQemu(t, { incoming: true, backend: 'memory-backend-memfd,id=ram,size=32M,share=on' });
  const { code, stderr } = await pagewake(t, [...stage.args, '--dest-qmp', `unix:${small.qmpPath}`]);
  assert.equal(code, 1, stderr);
  assert.match(stderr, /memory-backend-memfd: .*; nothing was touched; the guest runs on the source$/m);
  await assertNothingLeft(t, stage);
});
