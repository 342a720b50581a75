import assert from 'node:assert/strict';
import { test } from 'node:test';
import { downtimeOf } from './downtime.ts';

const at = (monotonicMs?: number) => ({ monotonicMs });

test('the VMMs tell the downtime where their clock is one, and what they say can be true', () => {
  const [one, two] = [{ sharedClock: true }, { sharedClock: false }];
  assert.deepEqual(downtimeOf(one, at(1000), at(1030), 50), { downtimeMs: 30, downtimeClock: 'vmm' });
  const ours = { downtimeMs: 50, downtimeClock: 'orchestrator' };
  assert.deepEqual(downtimeOf(two, at(1000), at(1030), 50), ours, 'two clocks');
  assert.deepEqual(downtimeOf(one, at(), at(1030), 50), ours, 'one does not say');
  assert.deepEqual(downtimeOf(one, at(1030), at(1000), 50), ours, 'backwards');
  assert.deepEqual(downtimeOf(one, at(1000), at(1051), 50), ours, 'longer than we waited');
});
