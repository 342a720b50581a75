/** Migrations that fail, at every point where they can: where the guest is afterwards, and what the command says and returns. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import {
  LARGE,
  pagewake,
  setStage,
  startDestination,
  startDestinationVmm,
  startHeld,
  startSource,
  takeSnapshot,
  temporaryFolder,
  untilItWorks,
  whyNoMigrations,
  type Stage,
} from '../../test/programs.ts';
import { connectSource } from '../agents.ts';
import { memoryFrom } from '../drivers/testvmm.ts';

const WHOLE = { timeout: 60_000, skip: whyNoMigrations() ?? false };

/** Nobody listens there: privileged, and reserved. */
const NOBODY = '127.0.0.1:1';

interface Case {
  readonly name: string;
  readonly args: (stage: Stage) => readonly string[];
  readonly before?: (stage: Stage) => Promise<unknown>;
  readonly after?: (stage: Stage) => Promise<unknown>;
  readonly says: RegExp;
}

const SOURCE_RUNS: readonly Case[] = [
  {
    name: 'a state that cannot be written, in the blackout',
    args: ({ args, folder }) => [...args, '--state-dir', join(folder, 'missing')],
    says: /ENOENT.*; the guest runs on on the source$/m,
  },
];

for (const { name, args, says } of SOURCE_RUNS) {
  test(`${name}: exit 3, and the guest runs on on the source`, WHOLE, async (t) => {
    const stage = await setStage(t);
    const { code, stderr } = await pagewake(t, args(stage));
    assert.match(stderr, says);
    assert.equal(stderr.trim().split('\n').length, 1, stderr);
    assert.equal(code, 3);
    await untilItWorks(stage.from);
    assert.equal((await stage.from.ask('verify'))['wrong'], 0);
    // Nothing is left behind that would stand in the way of the next try.
    const { stdout } = await pagewake(t, ['status', '--source', stage.source.address, '--json']);
    assert.deepEqual(JSON.parse(stdout), { vms: [] });
  });
}

/** What never began: whatever the source is, it is that still, and nothing is said of it that was not seen. */
const UNTOUCHED: readonly Case[] = [
  {
    name: 'a source agent that does not answer',
    args: ({ args }) => [...args, '--source', NOBODY],
    says: /SOURCE_UNREACHABLE: the source agent at 127\.0\.0\.1:1 does not answer .*; nothing was touched; the guest runs on the source$/m,
  },
  {
    name: 'a destination agent that does not answer',
    args: ({ args }) => [...args, '--destination', NOBODY],
    says: /: the destination agent at 127\.0\.0\.1:1 does not answer .*; nothing was touched; the guest runs on the source$/m,
  },
  {
    name: 'agents that are mistaken for each other',
    args: ({ args, source }) => [...args, '--destination', source.address],
    says: /has no such service: is it the destination agent.*; nothing was touched; the guest runs on the source$/m,
  },
  {
    name: 'a source that the destination cannot reach',
    args: ({ args }) => [...args, '--source-from-destination', NOBODY],
    says: /SOURCE_UNREACHABLE: the destination agent does not reach the source agent at 127\.0\.0\.1:1 .*; nothing was touched; the guest runs on the source$/m,
  },
  {
    name: 'a VM that the source does not run',
    args: ({ args }) => [...args, '--vm', 'another'],
    says: /^pagewake migrate: UNKNOWN_VM: .* the source runs VM "testvmm", not "another"; nothing was touched; the guest runs on the source$/m,
  },
  {
    name: 'a destination VMM that is not there',
    args: ({ args, folder }) => [...args, '--destination-vmm', `unix:${join(folder, 'no.sock')}`],
    says: /the destination VMM does not answer at .*no\.sock: .*ENOENT/,
  },
  {
    name: 'a destination VMM that is a source',
    args: ({ args, from }) => [...args, '--destination-vmm', `unix:${from.socket}`],
    says: /the destination VMM at .*from\.sock has a VM already/,
  },
  {
    name: 'a source VMM that is paused',
    args: ({ args }) => args,
    before: ({ from }) => from.ask('pause'),
    after: ({ from }) => from.ask('resume'),
    says: /is not running its guest but paused; nothing was touched on the source; its guest is paused there; if it has moved, do not resume/,
  },
  {
    name: 'a source VMM that is not there',
    args: ({ args, folder }) => [...args, '--source-vmm', `unix:${join(folder, 'no.sock')}`],
    says: /the source VMM does not answer at .*no\.sock.*; nothing was touched on the source; how the guest is on the source is not known$/m,
  },
  {
    name: 'VMMs that are mistaken for each other',
    args: ({ args, from, to }) => [
      ...args,
      '--source-vmm',
      `unix:${to.socket}`,
      '--destination-vmm',
      `unix:${from.socket}`,
    ],
    says: /the source VMM refused `stats`.*; nothing was touched on the source; how the guest is on the source is not known$/m,
  },
];

// One stage for all of them: what one left behind the next would meet.
test('what never began: exit 1, and nothing was touched', { ...WHOLE, timeout: 2 * WHOLE.timeout }, async (t) => {
  const stage = await setStage(t);
  for (const { name, args, before, after, says } of UNTOUCHED)
    await t.test(name, { timeout: WHOLE.timeout }, async (t) => {
      await before?.(stage);
      t.after(() => after?.(stage));
      const state = (await stage.from.ask('stats'))['state'];
      const { code, stderr } = await pagewake(t, args(stage));
      assert.match(stderr, says);
      assert.equal(stderr.trim().split('\n').length, 1, stderr);
      assert.equal(code, 1);
      assert.equal((await stage.from.ask('stats'))['state'], state);
      const { stdout } = await pagewake(t, ['status', '--source', stage.source.address, '--json']);
      assert.deepEqual(JSON.parse(stdout), { vms: [] });
    });
});

test('a second migration of a guest that is moving is refused: exit 1, and the first goes on', WHOLE, async (t) => {
  const stage = await setStage(t, LARGE);
  const first = await startHeld(t, stage);
  await first.line(/"type":"phase","phase":"filling"/);
  const { code, stderr } = await pagewake(t, stage.args);
  assert.match(stderr, /MIGRATION_EXISTS: VM testvmm is being migrated already: .* as serving, generation \d+; /);
  assert.match(stderr, /pagewake watch.* pagewake release testvmm --source .*; nothing was touched/);
  assert.equal(code, 1);
  const resumed = await pagewake(t, ['resume', 'held', '--destination', stage.destination.address]);
  assert.equal(resumed.code, 0, resumed.stderr);
  const ended = await first.exited;
  assert.equal(ended.code, 0, ended.stderr);
  assert.equal((await stage.to.ask('verify'))['wrong'], 0);
});

test('a VM that an orchestrator that died left registered is refused until it is released', WHOLE, async (t) => {
  const stage = await setStage(t);
  const agent = connectSource({ address: stage.source.address });
  t.after(() => agent.close());
  const memory = memoryFrom(await stage.from.ask('memory'), stage.from.socket);
  const token = new Uint8Array(32).fill(7);
  const { generation } = await agent.call((c, o) => c.register({ vmId: 'testvmm', memory, token }, o));
  const { code, stderr } = await pagewake(t, stage.args);
  assert.match(stderr, /MIGRATION_EXISTS: .* as registered, generation \d+; .*the guest runs on the source$/m);
  assert.equal(code, 1);
  const { vms } = await agent.call((c, o) => c.list({}, o));
  assert.deepEqual(
    vms.map((vm) => vm.generation),
    [generation],
  );
  const released = await pagewake(t, ['release', 'testvmm', '--source', stage.source.address]);
  assert.equal(released.code, 0, released.stderr);
  const again = await pagewake(t, stage.args);
  assert.equal(again.code, 0, again.stderr);
});

test('after a failure before the hand-over the same migration succeeds', WHOLE, async (t) => {
  const stage = await setStage(t);
  const failed = await pagewake(t, [...stage.args, '--state-dir', join(stage.folder, 'missing')]);
  assert.equal(failed.code, 3, failed.stderr);
  const { code, stderr } = await pagewake(t, stage.args);
  assert.equal(code, 0, stderr);
  assert.equal((await stage.to.ask('verify'))['wrong'], 0);
});

test(
  'a snapshot that is not what the destination VMM has is refused at the hand-over: exit 3, nothing lost',
  WHOLE,
  async (t) => {
    const folder = temporaryFolder(t);
    const [image, source, destination, to] = await Promise.all([
      takeSnapshot(t, folder),
      startSource(t),
      startDestination(t, folder),
      startDestinationVmm(t, folder),
    ]);
    const agents = ['--source', source.address, '--destination', destination.address];
    const files = ['--snapshot', image, '--state', `${image}.state`, '--destination-vmm', `unix:${to.socket}`];
    const args = ['migrate', '--vm', 'testvmm', '--id', 'cut', ...agents, ...files, '--regions', '2'];
    const { code, stderr } = await pagewake(t, args);
    assert.match(stderr, /^pagewake migrate: GEOMETRY_MISMATCH: .*; the snapshot is as it was$/m);
    assert.equal(code, 3);
    assert.equal((await to.child.exited).code, 3);
    const watched = await pagewake(t, ['watch', 'cut', '--destination', destination.address]);
    assert.equal(watched.code, 1);
    assert.match(watched.stderr, /^pagewake watch: GEOMETRY_MISMATCH: /m);
  },
);

async function assertSourceIsPaused({ from }: Stage): Promise<void> {
  assert.equal((await from.ask('stats'))['state'], 'paused');
}

test('the destination VMM dies while its memory follows: exit 4, and the source stays paused', WHOLE, async (t) => {
  const stage = await setStage(t, LARGE);
  const migration = await startHeld(t, stage);
  await migration.line(/"type":"phase","phase":"filling"/);
  await stage.to.child.kill('SIGKILL');
  const { code, stderr } = await migration.exited;
  assert.equal(code, 4, stderr);
  assert.match(stderr, /^pagewake migrate: VMM_EXITED: .*; end the destination VMM; the source stays paused/m);
  assert.match(stderr, /before VM testvmm can be migrated again: pagewake release testvmm --source \S+ --force$/m);
  await assertSourceIsPaused(stage);
});

test('the source agent dies while memory follows: told as interrupted, not as an end', WHOLE, async (t) => {
  const stage = await setStage(t, LARGE);
  const migration = await startHeld(t, stage);
  await migration.line(/"type":"phase","phase":"filling"/);
  await stage.source.child.kill('SIGKILL');
  await migration.line(/"type":"interrupted".*SOURCE_LOST/);
  const given = await pagewake(t, ['cancel', 'held', '--force', '--destination', stage.destination.address]);
  assert.equal(given.code, 0, given.stderr);
  const { code, stderr } = await migration.exited;
  assert.equal(code, 4, stderr);
  await assertSourceIsPaused(stage);
});

test('Ctrl-C once the guest has moved: exit 130, and the migration goes on without us', WHOLE, async (t) => {
  const stage = await setStage(t, LARGE);
  const migration = await startHeld(t, stage);
  await migration.line(/"type":"phase","phase":"filling"/);
  migration.signal('SIGINT');
  const { code, stderr } = await migration.exited;
  assert.equal(code, 130, stderr);
  assert.match(stderr, /the migration goes on by itself; follow it with: pagewake watch held/);
  const address = ['--destination', stage.destination.address];
  assert.equal((await pagewake(t, ['resume', 'held', ...address])).code, 0);
  const watched = await pagewake(t, ['watch', 'held', ...address]);
  assert.equal(watched.code, 0, watched.stderr);
  assert.equal((await stage.to.ask('verify'))['wrong'], 0);
});

test('both VMMs die: nobody is told to resume a source that is gone', WHOLE, async (t) => {
  const stage = await setStage(t, LARGE);
  const migration = await startHeld(t, stage);
  await migration.line(/"type":"phase","phase":"filling"/);
  await stage.from.child.kill('SIGKILL');
  await stage.to.child.kill('SIGKILL');
  const { code, stderr } = await migration.exited;
  assert.equal(code, 4, stderr);
  assert.match(stderr, /there is nothing to resume, and the guest is lost unless there is a snapshot/);
  assert.doesNotMatch(stderr, /resume it/);
});

test(
  'Ctrl-C while the destination agent is gone: exit 1, and the reason is that it does not answer',
  WHOLE,
  async (t) => {
    const stage = await setStage(t, LARGE);
    const migration = await startHeld(t, stage);
    await migration.line(/"type":"phase","phase":"filling"/);
    await stage.destination.child.kill('SIGKILL');
    await migration.line(/"type":"warning".*does not answer/);
    migration.signal('SIGINT');
    const { code, stderr } = await migration.exited;
    assert.match(
      stderr,
      /^pagewake migrate: the destination agent at \S+ does not answer.*; the migration may be going on/m,
    );
    assert.equal(code, 1);
  },
);

test('Ctrl-C while an eager guest waits for its pages: exit 130, and it runs on on the source', WHOLE, async (t) => {
  const stage = await setStage(t, LARGE);
  const migration = await startHeld(t, stage, ['--mode', 'eager']);
  migration.signal('SIGINT');
  const { code, stderr } = await migration.exited;
  assert.match(stderr, /^pagewake migrate: CANCELLED: told to stop; the guest runs on on the source$/m);
  assert.equal(code, 130);
  await untilItWorks(stage.from);
  assert.equal((await stage.from.ask('verify'))['wrong'], 0);
});
