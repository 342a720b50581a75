/** Ids that are given by their beginning; and what one sees that watches and has enough of it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { MigrationPhase, MigrationSchema } from '@pagewake/proto';
import { LARGE, pagewake, setStage, startHeld, startPagewake, whyNoMigrations } from '../../test/programs.ts';
import { connectDestination } from '../agents.ts';
import { summaryOf } from '../view.ts';
import { pick } from './which.ts';

const WHOLE = { timeout: 60_000, skip: whyNoMigrations() ?? false };

const some = (...ids: readonly string[]) =>
  ids.map((migrationId) =>
    summaryOf(create(MigrationSchema, { migrationId, vmId: 'web', phase: MigrationPhase.FILLING })),
  );

test('the beginning of one id is that migration, and a whole id is its own even where others begin with it', () => {
  const list = some('abc', 'abcd', 'b1');
  assert.equal(pick(list, 'b')?.migrationId, 'b1');
  assert.equal(pick(list, 'abc')?.migrationId, 'abc');
  assert.equal(pick(list, 'abcd')?.migrationId, 'abcd');
  assert.equal(pick(list, 'x'), undefined);
});

test('the beginning of several ids is wrong usage, and names them', () => {
  assert.throws(() => pick(some('abc', 'abcd', 'b1'), 'a'), {
    exitCode: 2,
    message: 'a is the beginning of 2 migrations; give more of it: abc (web, filling), abcd (web, filling)',
  });
  const many = some(...Array.from({ length: 30 }, (_, n) => `m${String(n)}`));
  assert.throws(
    () => pick(many, 'm'),
    /^UserError: m is the beginning of 30 migrations; .*, m7 \(web, filling\) and 22 more$/,
  );
});

test('every command that takes a migration takes the beginning of its id', WHOLE, async (t) => {
  const stage = await setStage(t, LARGE);
  const address = ['--destination', stage.destination.address];
  const migration = await startHeld(t, stage);
  const agent = connectDestination({ address: stage.destination.address });
  t.after(() => agent.close());
  // Another one, of which only the agent knows: nobody hands anything over for it.
  const other = { migrationId: 'hello', vmId: 'other', sourceAddress: stage.source.address, generation: 1 };
  await agent.call((c, o) => c.start({ ...other, token: new Uint8Array(32) }, o));
  for (const command of ['status', 'watch', 'pause', 'resume', 'cancel']) {
    const { code, stderr } = await pagewake(t, [command, 'he', ...address]);
    assert.equal(code, 2, command);
    assert.match(stderr, /: he is the beginning of 2 migrations; give more of it: .*held \(testvmm, paused\)/);
    assert.match(stderr, /hello \(other, awaiting-vmm\)/);
  }
  assert.equal((await pagewake(t, ['cancel', 'hell', ...address])).stdout, 'hello: cancelled\n');
  assert.equal((await pagewake(t, ['resume', 'held', ...address])).stdout, 'held: filling\n');
  const { code, stderr } = await migration.exited;
  assert.equal(code, 0, stderr);
  assert.match((await pagewake(t, ['watch', 'hel', ...address])).stderr, /hel is the beginning of 2/);
  const watched = await pagewake(t, ['watch', 'held', '--json', ...address]);
  assert.equal(watched.code, 0, watched.stderr);
});

test('Ctrl-C ends a watch with exit 130 and a line that says so, and nothing else', WHOLE, async (t) => {
  const stage = await setStage(t, LARGE);
  const address = ['--destination', stage.destination.address];
  const migration = await startHeld(t, stage);
  const watch = startPagewake(t, ['watch', 'hel', ...address]);
  await watch.line(/^paused/);
  watch.signal('SIGINT');
  const { code, stderr } = await watch.exited;
  assert.equal(stderr, 'pagewake watch: not watched any longer; migration held goes on\n');
  assert.equal(code, 130);
  assert.equal((await pagewake(t, ['resume', 'hel', ...address])).stdout, 'held: filling\n');
  assert.equal((await migration.exited).code, 0);
  assert.equal((await stage.to.ask('verify'))['wrong'], 0);
});
