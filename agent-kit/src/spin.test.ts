import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { Spinner } from './spin.ts';

const BUDGET = { timeout: 30_000 };
const HOUR_US = 3_600_000_000;

async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await turn();
}

/** What another thread on this core does to a loop. */
function putAside(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

test('0 never spins', () => {
  const spinner = new Spinner(0);
  spinner.touch();
  assert.equal(spinner.spinning, false);
});

test('a loop spins from a touch on until it is told to stop', BUDGET, async () => {
  const spinner = new Spinner(HOUR_US);
  spinner.touch();
  assert.equal(spinner.spinning, true);
  spinner.stop();
  await turns(3);
  assert.equal(spinner.spinning, false);
});

test('a loop spins no longer than it was told to', BUDGET, async () => {
  const spinner = new Spinner(1);
  spinner.touch();
  while (spinner.spinning) await turn();
});

test('a loop that is put aside while it spins rests, and does not begin again at the next touch', BUDGET, async () => {
  const spinner = new Spinner(HOUR_US);
  spinner.touch();
  putAside(20);
  await turns(3);
  assert.equal(spinner.spinning, false);
  spinner.touch();
  assert.equal(spinner.spinning, false);
});
