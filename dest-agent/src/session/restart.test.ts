/** One agent leaves, the next one goes on; that a killed one leaves no less is shown by whole processes (e2e/test/restart.test.ts). */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { PageLedger } from '@pagewake/native';
import { MigrationPhase } from '@pagewake/proto';
import { handOver, reasonOf, startDest, startVmm, type TestDest } from '../../test/agent.ts';
import { startFakeSource, type FakeSource, type SourceScript } from '../../test/fake-source.ts';
import { content, seen, SIGBUS } from '../../test/pages.ts';
import { lacking, temporaryDir, type Toucher } from '../../test/toucher.ts';
import { BUDGET, until } from '../../test/wait.ts';
import { STAGE } from './record.ts';

const UFFD = {
  ...BUDGET,
  skip: lacking('userfaultfd by syscall', 'MISSING on memfd', 'ZEROPAGE on memfd', 'UFFDIO_POISON'),
};
const PAGES = 1024;
const READY = { type: 'ready' };
const DONE = { type: 'done' };
const LIVE = { more: { content: 'live' } };

interface Left {
  readonly source: FakeSource;
  readonly vmm: Toucher;
  readonly socketDir: string;
  readonly socket: string;
  readonly ledger: string;
  readonly record: string;
}

/** A migration that its agent has left: one page has come by a fault. */
async function leftWhileFilling(t: TestContext, script: Partial<SourceScript> = {}): Promise<Left> {
  const source = await startFakeSource(t, { pages: PAGES, bulk: () => undefined, ...script });
  const socketDir = temporaryDir(t);
  const dest = await startDest(t, { socketDir });
  const { vmmSocket } = await dest.start(source.address);
  const vmm = await startVmm(t, { pages: PAGES });
  handOver(vmm, vmmSocket);
  assert.deepEqual(await vmm.message(), READY);
  assert.deepEqual(await vmm.touch(0, 700), seen(content(700)));
  await dest.leave();
  const state = (name: string): string => join(socketDir, '.state', name);
  return { source, vmm, socketDir, socket: vmmSocket, ledger: state('m.ledger'), record: state('m.json') };
}

const awaits = (dest: TestDest): Promise<unknown> => dest.phase('m', MigrationPhase.AWAITING_VMM);

test(
  'the next agent has the migration, opens the source as the same destination, and completes it',
  UFFD,
  async (t) => {
    const { source, vmm, socketDir, socket } = await leftWhileFilling(t);
    const waits = vmm.touch(1, 3);
    const dest = await startDest(t, { socketDir });
    await awaits(dest);
    source.release();
    handOver(vmm, socket, LIVE);
    assert.deepEqual(await vmm.message(), READY);
    assert.deepEqual(await waits, seen(content(3)));
    assert.deepEqual(await vmm.message(), DONE);
    await dest.phase('m', MigrationPhase.COMPLETED);
    assert.equal(new Set(source.opens.map(({ destinationId }) => destinationId)).size, 1);
    assert.equal(source.completes.length, 1);
  },
);

test(
  'left while held, it is held again, and what came with the handshake is asked as of a new one',
  UFFD,
  async (t) => {
    const source = await startFakeSource(t, { pages: PAGES, running: true });
    const socketDir = temporaryDir(t);
    const before = await startDest(t, { socketDir });
    const { vmmSocket } = await before.start(source.address);
    const vmm = await startVmm(t, { pages: PAGES });
    handOver(vmm, vmmSocket);
    assert.deepEqual(await vmm.message(), { type: 'held' });
    await before.leave();
    const dest = await startDest(t, { socketDir });
    await awaits(dest);
    handOver(vmm, vmmSocket, { more: { content: 'discard' } });
    assert.deepEqual(await vmm.message(), { type: 'held' });
    source.pause();
    assert.deepEqual(await vmm.message(), READY);
    assert.deepEqual(await vmm.message(), DONE);
    assert.deepEqual(await vmm.touch(0, 700), seen(content(700)));
  },
);

test('paused when its agent left, it is paused with the next one, until it is resumed', UFFD, async (t) => {
  const source = await startFakeSource(t, { pages: PAGES, bulk: () => undefined });
  const socketDir = temporaryDir(t);
  const before = await startDest(t, { socketDir });
  const { vmmSocket } = await before.start(source.address);
  const vmm = await startVmm(t, { pages: PAGES });
  handOver(vmm, vmmSocket);
  assert.deepEqual(await vmm.message(), READY);
  await before.client.pause({ migrationId: 'm' });
  await before.leave();
  const asked = source.ranges.length;
  source.release();
  const dest = await startDest(t, { socketDir });
  await awaits(dest);
  handOver(vmm, vmmSocket, LIVE);
  assert.deepEqual(await vmm.message(), READY);
  assert.equal((await dest.get('m')).phase, MigrationPhase.PAUSED);
  for (const page of [3, 500, 900]) assert.deepEqual(await vmm.touch(0, page), seen(content(page)));
  assert.equal(source.ranges.length, asked);
  await dest.client.resume({ migrationId: 'm' });
  assert.deepEqual(await vmm.message(), DONE);
});

test('every page was there and nobody was told: the next agent tells the VMM and the source', UFFD, async (t) => {
  const { source, vmm, socketDir, socket, ledger } = await leftWhileFilling(t);
  mark(ledger, STAGE.live);
  const dest = await startDest(t, { socketDir });
  handOver(vmm, socket, LIVE);
  assert.deepEqual(await vmm.message(), DONE);
  await dest.phase('m', MigrationPhase.COMPLETED);
  assert.equal(source.completes.length, 1);
});

test('the VMM was told and does not come back: the source is told all the same', UFFD, async (t) => {
  const { source, socketDir, ledger } = await leftWhileFilling(t);
  mark(ledger, STAGE.givenBack);
  const dest = await startDest(t, { socketDir });
  await dest.phase('m', MigrationPhase.COMPLETED);
  assert.equal(source.completes.length, 1);
});

/** As a ledger is whose every page came. */
function mark(path: string, stage: number): void {
  const ledger = PageLedger.open(path);
  ledger.recover(0, ledger.pageCount, 'held');
  ledger.stage = stage;
  ledger.close();
}

test('memory of another VMM is refused, and that of the right one is taken afterwards', UFFD, async (t) => {
  const { source, vmm, socketDir, socket } = await leftWhileFilling(t);
  const dest = await startDest(t, { socketDir });
  await awaits(dest);
  const other = await startVmm(t, { pages: PAGES });
  handOver(other, socket, { more: { content: 'discard' } });
  const told = await other.message();
  assert.deepEqual([told['type'], told['reason']], ['failed', 'BAD_HANDSHAKE']);
  assert.match(String(told['message']), /not the memory that this migration was filling/);
  source.release();
  handOver(vmm, socket, LIVE);
  assert.deepEqual(await vmm.message(), READY);
  assert.deepEqual(await vmm.message(), DONE);
});

test('a VMM that died in the meantime fails the migration with VMM_EXITED', UFFD, async (t) => {
  const { vmm, socketDir } = await leftWhileFilling(t);
  await vmm.kill();
  const dest = await startDest(t, { socketDir });
  assert.equal(reasonOf(await dest.phase('m', MigrationPhase.FAILED)), 'VMM_EXITED');
});

test('a ledger that is lost ends the guest: nobody can tell what it lacks from what it gave back', UFFD, async (t) => {
  const { vmm, socketDir, socket, ledger } = await leftWhileFilling(t);
  writeFileSync(ledger, readFileSync(ledger).subarray(0, 100));
  const waits = vmm.touch(1, 3);
  const dest = await startDest(t, { socketDir });
  await awaits(dest);
  handOver(vmm, socket, LIVE);
  assert.deepEqual(await waits, SIGBUS);
  const told = await vmm.message();
  assert.deepEqual([told['type'], told['reason'], told['again']], ['failed', 'INTERNAL', undefined]);
  assert.deepEqual(await vmm.touch(0, 700), seen(content(700)));
});

test('a record that is cut short costs its own migration, and the agent starts', UFFD, async (t) => {
  const { socketDir, record } = await leftWhileFilling(t);
  writeFileSync(record, readFileSync(record, 'utf8').slice(0, -20));
  const dest = await startDest(t, { socketDir });
  assert.deepEqual((await dest.client.list({})).migrations, []);
  assert.ok(existsSync(`${record}.refused`));
});

test('a source that is away when the agent comes back is waited for', UFFD, async (t) => {
  const { source, vmm, socketDir, socket } = await leftWhileFilling(t);
  await source.kill();
  const dest = await startDest(t, { socketDir });
  await awaits(dest);
  handOver(vmm, socket, LIVE);
  await dest.phase('m', MigrationPhase.OPENING);
  source.release();
  await source.restart();
  assert.deepEqual(await vmm.message(), READY);
  assert.deepEqual(await vmm.message(), DONE);
});

test('how it ended is known to the next agent', UFFD, async (t) => {
  const source = await startFakeSource(t, { pages: PAGES });
  const socketDir = temporaryDir(t);
  const before = await startDest(t, { socketDir });
  const { vmmSocket } = await before.start(source.address);
  const vmm = await startVmm(t, { pages: PAGES });
  handOver(vmm, vmmSocket);
  const ended = await before.phase('m', MigrationPhase.COMPLETED);
  const record = join(socketDir, '.state/m.json');
  await until('its end is written down', () => readFileSync(record, 'utf8').includes('"ended"'));
  await before.leave();
  const dest = await startDest(t, { socketDir });
  const after = await dest.get('m');
  assert.equal(after.phase, MigrationPhase.COMPLETED);
  assert.deepEqual(after.progress?.pagesPresent, ended.progress?.pagesPresent);
  // Nothing that opens the source is kept.
  assert.ok(!readFileSync(record, 'utf8').includes('07'.repeat(32)));
});
