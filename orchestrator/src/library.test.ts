/** What only the library can be told: agents that go away under it, and drivers that fail at a chosen moment. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  LARGE,
  setStage,
  startDestination,
  temporaryFolder,
  untilItWorks,
  whyNoMigrations,
  type Stage,
} from '../test/programs.ts';
import { migrate, MigrationError, TestVmmDriver, type MigrateOptions, type VmmDriver } from './index.ts';

const WHOLE = { timeout: 60_000, skip: whyNoMigrations() ?? false };

function optionsFor(stage: Stage, driver: VmmDriver = driverFor(stage)): MigrateOptions {
  return { driver, source: { address: stage.source.address }, destination: { address: stage.destination.address } };
}

function driverFor(stage: Stage): TestVmmDriver {
  return new TestVmmDriver({ sourceSocket: stage.from.socket, destinationSocket: stage.to.socket });
}

/** The driver of the stage, but for what `changes` says. */
function changed(stage: Stage, changes: Partial<VmmDriver>): VmmDriver {
  const driver = driverFor(stage);
  const same: VmmDriver = {
    sharedClock: driver.sharedClock,
    hasSourceGuest: driver.hasSourceGuest,
    describe: () => driver.describe(),
    check: (signal) => driver.check(signal),
    describeMemory: (signal) => driver.describeMemory(signal),
    pauseSource: (onStop) => driver.pauseSource(onStop),
    resumeSource: () => driver.resumeSource(),
    saveState: () => driver.saveState(),
    startDestination: (state, socket, signal) => driver.startDestination(state, socket, signal),
    close: () => driver.close(),
  };
  return { ...same, ...changes };
}

async function failureOf(options: MigrateOptions): Promise<MigrationError> {
  const failure: unknown = await migrate(options).result.then(
    () => assert.fail('it succeeded'),
    (error: unknown) => error,
  );
  assert.ok(failure instanceof MigrationError, String(failure));
  return failure;
}

const stateOf = async ({ from }: Stage): Promise<unknown> => (await from.ask('stats'))['state'];

test('whoever only iterates gets the events, and then the failure', WHOLE, async (t) => {
  const stage = await setStage(t);
  const phases: string[] = [];
  const migration = migrate({ ...optionsFor(stage), vmId: 'another' });
  await assert.rejects(async () => {
    for await (const event of migration) if (event.type === 'phase') phases.push(event.phase);
  }, /the source runs VM "testvmm"/);
  assert.deepEqual(phases, ['failed-untouched']);
  assert.equal(migration.phase, 'failed-untouched');
});

test(
  'of two migrations of one guest in the same moment one is refused with nothing changed, and the other moves it',
  WHOLE,
  async (t) => {
    const stage = await setStage(t);
    // Both have looked at the guest before either goes on.
    const both = Promise.withResolvers<void>();
    let looked = 0;
    const drivers = [0, 1].map(() => {
      const inner = driverFor(stage);
      const describeMemory: VmmDriver['describeMemory'] = async (signal) => {
        const described = await inner.describeMemory(signal);
        if (++looked === 2) both.resolve();
        await both.promise;
        return described;
      };
      return changed(stage, { check: (signal) => inner.check(signal), describeMemory, close: () => inner.close() });
    });
    const ends = await Promise.allSettled(drivers.map((driver) => migrate(optionsFor(stage, driver)).result));
    const failures = ends.filter((end) => end.status === 'rejected').map(({ reason }) => reason as unknown);
    assert.equal(failures.length, 1, String(failures));
    const [failure] = failures;
    assert.ok(failure instanceof MigrationError, String(failure));
    assert.equal(failure.outcome, 'failed-untouched');
    assert.match(
      failure.message,
      /VM testvmm is being migrated already: .* as (registered|ready|serving), generation \d+; /,
    );
    assert.equal((await stage.to.ask('verify'))['wrong'], 0);
  },
);

test('told to stop in the blackout: everything is taken back', WHOLE, async (t) => {
  const stage = await setStage(t);
  const stop = new AbortController();
  const inner = driverFor(stage);
  const driver = changed(stage, {
    saveState: () => {
      stop.abort();
      return inner.saveState();
    },
  });
  const failure = await failureOf({ ...optionsFor(stage, driver), signal: stop.signal });
  assert.equal(failure.outcome, 'failed-source-runs');
  assert.equal(failure.reasonName, 'CANCELLED');
  await untilItWorks(stage.from);
});

test('a guest that cannot be resumed is said to be paused, not lost', WHOLE, async (t) => {
  const stage = await setStage(t);
  const driver = changed(stage, {
    saveState: () => Promise.reject(new Error('disk full')),
    resumeSource: () => Promise.reject(new Error('the VMM is stuck')),
  });
  const failure = await failureOf(optionsFor(stage, driver));
  assert.equal(failure.outcome, 'failed-source-paused');
  assert.equal(failure.message, 'disk full');
  assert.match(failure.advice, /resume it there by hand: the VMM is stuck/);
  assert.equal(await stateOf(stage), 'paused');
});

test('a source VMM that dies in the blackout is not said to hold a paused guest', WHOLE, async (t) => {
  const stage = await setStage(t);
  const inner = driverFor(stage);
  const driver = changed(stage, {
    sourceState: () => inner.sourceState(),
    saveState: async () => {
      await stage.from.child.kill('SIGKILL');
      return inner.saveState();
    },
  });
  const failure = await failureOf(optionsFor(stage, driver));
  assert.equal(failure.outcome, 'failed-unknown');
  assert.match(failure.advice, /the source VMM does not answer: if its process is gone, so is the guest/);
});

test('a destination VMM of which nobody knows whether it runs: never two guests', WHOLE, async (t) => {
  const stage = await setStage(t, LARGE);
  const inner = driverFor(stage);
  const driver = changed(stage, {
    // The guest runs; only the answer is lost.
    startDestination: async (state, socket, signal) => {
      await inner.startDestination(state, socket, signal);
      throw new Error('the answer was lost');
    },
  });
  const failure = await failureOf(optionsFor(stage, driver));
  assert.equal(failure.outcome, 'failed-unknown');
  assert.match(failure.advice, /see whether its VMM runs the guest .* the source stays paused/);
  assert.equal(await stateOf(stage), 'paused');
  await untilItWorks(stage.to);
});

test(
  'a destination agent that is started anew without its state folder has forgotten: the guest there is lost, the source stays paused',
  WHOLE,
  async (t) => {
    const stage = await setStage(t, LARGE);
    const migration = migrate(optionsFor(stage));
    const { address } = stage.destination;
    const failed = assert.rejects(migration.result, (error: unknown) => {
      assert.ok(error instanceof MigrationError);
      assert.equal(error.outcome, 'failed-guest-lost');
      assert.equal(error.reasonName, 'UNKNOWN_MIGRATION');
      assert.match(error.advice, /the destination agent was started anew without its state folder/);
      return true;
    });
    for await (const event of migration) if (event.type === 'phase' && event.phase === 'filling') break;
    await stage.destination.child.kill('SIGKILL');
    await startDestination(t, temporaryFolder(t), address);
    await failed;
    assert.equal(await stateOf(stage), 'paused');
  },
);

test('a destination agent that stays away: unknown, and the source stays paused', WHOLE, async (t) => {
  const stage = await setStage(t, LARGE);
  const migration = migrate({ ...optionsFor(stage), destinationLossMs: 300 });
  const failed = assert.rejects(migration.result, { outcome: 'failed-unknown' });
  for await (const event of migration) if (event.type === 'phase' && event.phase === 'filling') break;
  await stage.destination.child.kill('SIGKILL');
  await failed;
  assert.equal(await stateOf(stage), 'paused');
});
