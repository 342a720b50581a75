import assert from 'node:assert/strict';
import { test } from 'node:test';
import { downtimeOf } from './downtime.ts';

const at = (atMs?: number) => ({ atMs });

test('the VMMs tell the downtime where their clock is one, and what they say can be true', () => {
  const saw = { oursMs: 50, atMostMs: 60 };
  const [one, two] = [{ sharedClock: true }, { sharedClock: false }];
  assert.deepEqual(downtimeOf(one, at(1000), at(1030), saw), { downtimeMs: 30, downtimeClock: 'vmm' });
  const ours = { downtimeMs: 50, downtimeClock: 'orchestrator' };
  assert.deepEqual(downtimeOf(two, at(1000), at(1030), saw), ours, 'two clocks');
  assert.deepEqual(downtimeOf(one, at(), at(1030), saw), ours, 'one does not say');
  assert.deepEqual(downtimeOf(one, at(1030), at(1000), saw), ours, 'backwards');
  assert.deepEqual(downtimeOf(one, at(1000), at(1061), saw), ours, 'longer than we waited');
});
