import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { ProcessEnd } from './process-end.ts';

const BUDGET = { timeout: 10_000 };

test('a process that lives is said to, once; its end is noticed', BUDGET, async (t) => {
  const child = spawn('sleep', ['60']);
  t.after(() => child.kill('SIGKILL'));
  await once(child, 'spawn');
  let stillThere = 0;
  const { promise, resolve } = Promise.withResolvers<void>();
  const seen = Promise.withResolvers<void>();
  const end = new ProcessEnd(child.pid ?? 0, resolve, () => {
    stillThere++;
    seen.resolve();
  });
  t.after(() => end.stop());
  await seen.promise;
  child.kill('SIGKILL');
  await promise;
  assert.equal(stillThere, 1);
});

test('a zombie is gone, though its number is still taken', BUDGET, async (t) => {
  // The shell turns into a sleep that never waits for the child it had.
  const parent = spawn('sh', ['-c', 'true & echo $!; exec sleep 60'], { stdio: ['ignore', 'pipe', 'ignore'] });
  t.after(() => parent.kill('SIGKILL'));
  const [output] = (await once(parent.stdout, 'data')) as [Buffer];
  const { promise, resolve } = Promise.withResolvers<void>();
  const end = new ProcessEnd(Number(output.toString()), resolve, () => undefined);
  t.after(() => end.stop());
  await promise;
});
