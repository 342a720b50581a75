import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isFinalPhase, mayFollow, MIGRATION_PHASES, PhaseClock, type MigrationPhase } from './phase.ts';

test('once the guest may run on the destination, no way leads back to a running source', () => {
  const reachable = (from: MigrationPhase): MigrationPhase[] => {
    const next = MIGRATION_PHASES.filter((to) => mayFollow(from, to));
    return [...next, ...next.flatMap(reachable)];
  };
  assert.ok(!reachable('filling').includes('failed-source-runs'));
  assert.ok(!reachable('filling').includes('blackout'));
});

test('a migration can only end well through the blackout and the filling', () => {
  assert.deepEqual(
    MIGRATION_PHASES.filter((from) => mayFollow(from, 'completed')),
    ['filling'],
  );
  assert.deepEqual(
    MIGRATION_PHASES.filter((from) => mayFollow(from, 'filling')),
    ['blackout'],
  );
});

test('nothing was touched can only be said before the blackout', () => {
  assert.deepEqual(
    MIGRATION_PHASES.filter((from) => mayFollow(from, 'failed-untouched')),
    ['preparing'],
  );
});

test('every phase but the final ones has a way to fail, and the final ones lead nowhere', () => {
  for (const phase of MIGRATION_PHASES) {
    const next = MIGRATION_PHASES.filter((to) => mayFollow(phase, to));
    if (isFinalPhase(phase)) assert.deepEqual(next, [], phase);
    else
      assert.ok(
        next.some((to) => to.startsWith('failed-')),
        phase,
      );
  }
});

test('the clock tells how long each phase took and refuses what the table lacks', () => {
  let nowMs = 100;
  const clock = new PhaseClock(() => nowMs);
  nowMs = 130;
  assert.deepEqual(clock.advance('blackout'), { phase: 'preparing', ms: 30 });
  nowMs = 135;
  clock.advance('filling');
  assert.throws(() => clock.advance('preparing'), /a migration that is filling cannot become preparing/);
  assert.deepEqual(clock.times, [
    { phase: 'preparing', ms: 30 },
    { phase: 'blackout', ms: 5 },
  ]);
});
