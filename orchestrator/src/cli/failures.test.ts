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

const WHOLE = { timeout: 60_000, skip: whyNoMigrations() ?? false };

/** Nobody listens there: privileged, and reserved. */
const NOBODY = '127.0.0.1:1';

interface Case {
  readonly name: string;
  readonly args: (stage: Stage) => readonly string[];
  readonly before?: (stage: Stage) => Promise<unknown>;
  readonly says: RegExp;
}

const SOURCE_RUNS: readonly Case[] = [
  {
    name: 'a VM that the source does not run',
    args: ({ args }) => [...args, '--vm', 'another'],
    says: /^pagewake migrate: UNKNOWN_VM: .* the source runs VM "testvmm", not "another"; the guest runs on on the source$/m,
  },
  {
    name: 'a source agent that does not answer',
    args: ({ args }) => [...args, '--source', NOBODY],
    says: /SOURCE_UNREACHABLE: the source agent at 127\.0\.0\.1:1 does not answer .*; the guest runs on/,
  },
  {
    name: 'a destination agent that does not answer',
    args: ({ args }) => [...args, '--destination', NOBODY],
    says: /: the destination agent at 127\.0\.0\.1:1 does not answer .*; the guest runs on/,
  },
  {
    name: 'agents that are mistaken for each other',
    args: ({ args, source }) => [...args, '--destination', source.address],
    says: /has no such service: is it the destination agent/,
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
    name: 'a state that cannot be written, in the blackout',
    args: ({ args, folder }) => [...args, '--state-dir', join(folder, 'missing')],
    says: /ENOENT.*; the guest runs on on the source$/m,
  },
  {
    name: 'a source that the destination cannot reach',
    args: ({ args }) => [...args, '--source-from-destination', NOBODY],
    says: /SOURCE_UNREACHABLE: the destination agent does not reach the source agent at 127\.0\.0\.1:1 .*; the guest runs on on the source$/m,
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
