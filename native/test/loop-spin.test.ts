import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { MessageChannel } from 'node:worker_threads';
import { once } from 'node:events';
import { LoopSpin } from '../ts/index.ts';
import { HANG_MS, until } from './support.ts';

const BUDGET = { timeout: 3 * HANG_MS };
const HOUR_US = 3_600_000_000;

function spinFor(t: TestContext, forUs: number, amongSeveralUs = 0): LoopSpin {
  const spin = new LoopSpin(forUs, amongSeveralUs);
  t.after(() => spin.close());
  return spin;
}

test('a loop that is to stay awake for no time sleeps as any other', (t) => {
  const spin = spinFor(t, 0);
  spin.touch();
  assert.equal(spin.state, 'asleep');
});

test('a loop is awake from a touch on until it is told to stop', (t) => {
  const spin = spinFor(t, HOUR_US);
  spin.touch();
  assert.equal(spin.state, 'awake');
  spin.stop();
  assert.equal(spin.state, 'asleep');
});

test('a loop that is to stay awake only among several sleeps at a touch that is one alone', (t) => {
  const spin = spinFor(t, 0, HOUR_US);
  spin.touch();
  assert.equal(spin.state, 'asleep');
  spin.touch(true);
  assert.equal(spin.state, 'awake');
  spin.stop();
  assert.equal(spin.state, 'asleep');
});

test('a loop stays awake no longer than it was told to, or for as long as it keeps its core', BUDGET, async (t) => {
  const spin = spinFor(t, 1);
  spin.touch();
  await until('the loop sleeps', () => spin.state !== 'awake');
});

test('a loop that is awake takes what comes, and its timers', BUDGET, async (t) => {
  const spin = spinFor(t, HOUR_US);
  const { port1, port2 } = new MessageChannel();
  t.after(() => port1.close());
  spin.touch();
  port2.postMessage('here');
  await once(port1, 'message');
  spin.touch();
  await sleep(2);
});

test('a loop that is awake for the next message does not keep a process alive', BUDGET, (t) => {
  spinFor(t, HOUR_US).touch();
});

test('a closed one may be touched, stopped and closed again', (t) => {
  const spin = spinFor(t, HOUR_US);
  spin.close();
  spin.touch();
  spin.stop();
  spin.close();
  assert.equal(spin.state, 'asleep');
});
