/** `npm start -- --qemu`, and the page that does the same by hand: what a new user tries first. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { whyNoNamespaces } from '../lib/hosts.ts';
import { ROOT } from '../lib/processes.ts';
import { whyNoQemuMigration } from '../lib/qemu-migration.ts';

const BUDGET = { timeout: 110_000 };
const RUN_MS = 100_000;

function run(command: readonly string[]) {
  const [program = '', ...args] = command;
  return spawnSync(program, args, { cwd: ROOT, encoding: 'utf8', timeout: RUN_MS });
}

const demo = (...args: readonly string[]) => run([process.execPath, join(ROOT, 'e2e/demo/main.ts'), ...args]);

test(
  'npm start -- --qemu, on loopback: the guest goes on in the other QEMU, no page wrong and no heartbeat missed',
  { ...BUDGET, skip: whyNoQemuMigration() ?? false },
  () => {
    const { status, stdout, stderr } = demo('--qemu', '--hosts', 'loopback', '--ram', '192M', '--workload', '64M');
    assert.equal(status, 0, stderr + stdout);
    assert.match(stdout, /wrong pages +│ 0 /);
    assert.match(stdout, / of one guest on both consoles, 0 missed/);
    assert.match(stdout, /The guest runs on the destination; no page was lost or wrong\.\n$/);
  },
);

test('what only the test VMM has is wrong usage with --qemu', BUDGET, () => {
  for (const flags of [
    ['--regions', '2'],
    ['--memory', 'memfd'],
    ['--minor'],
    ['--pattern', 'zero-heavy'],
    ['--ram', '128M', '--workload', '64M'],
  ]) {
    const { status, stdout, stderr } = demo('--qemu', ...flags);
    assert.equal(status, 2, flags.join(' '));
    assert.equal(stdout, '');
    assert.match(stderr, /^error: --/);
  }
});

test(
  'docs/qemu.md is a script that works, line by line',
  { ...BUDGET, skip: whyNoQemuMigration() ?? whyNoNamespaces() ?? false },
  () => {
    const text = readFileSync(join(ROOT, 'docs/qemu.md'), 'utf8');
    const block = /^```sh\n(.*?)^```$/ms.exec(text)?.[1] ?? '';
    // What has been done when tests run, and would be done again; a network of its own, for the ports.
    const script = block.replace(/^npm run setup .*$/m, '');
    assert.notEqual(script, block);
    const { status, stdout, stderr } = run(['unshare', '--net', 'bash', '-euc', `ip link set lo up\n${script}`]);
    assert.equal(status, 0, stderr);
    const [before, after] = stdout.split(/^migration .* of VM web1$/m);
    assert.match(before ?? '', /"hb":\d+/);
    assert.match(after ?? '', /^done: downtime .*/m);
    const beats = [...(after ?? '').matchAll(/"hb":(\d+).*"wrong":(\d+)/g)];
    assert.ok(beats.length >= 3, stdout);
    for (const [, , wrong] of beats) assert.equal(wrong, '0');
  },
);
